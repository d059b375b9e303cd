//go:build !linux

package scan

import (
	"io/fs"
	"os"
	"path"

	"nightferry/internal/durable"
)

// listPortable reads a folder with portable calls only: without change times
// and file ids. It also serves Windows shares that lack the fast call.
func listPortable(full, dir string, skip func(string, bool) bool) ([]Item, error) {
	list, err := os.ReadDir(full)
	if err != nil {
		if pe, ok := err.(*fs.PathError); ok {
			err = pe.Err
		}
		return nil, err
	}
	items := make([]Item, 0, len(list))
	for _, e := range list {
		it := Item{Path: path.Join(dir, e.Name())}
		if skip != nil && skip(it.Path, e.IsDir()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			it.Err = err
			items = append(items, it)
			continue
		}
		it.Stat = Stat{MTime: durable.Nanoseconds(info.ModTime()), Mode: unixMode(info)}
		switch m := info.Mode(); {
		case m.IsRegular():
			it.Kind, it.Stat.Size = File, info.Size()
		case m&(fs.ModeSymlink|fs.ModeIrregular) != 0:
			it.Kind = Link
		case m.IsDir():
			it.Kind = Dir
		default:
			it.Kind = Special
		}
		items = append(items, it)
	}
	return items, nil
}
