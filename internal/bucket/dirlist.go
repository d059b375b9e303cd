package bucket

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// List walks the folders in the byte order of the whole keys, as S3 does: it sorts a folder as if its name ended with a
// slash.
func (d *dirStore) List(ctx context.Context, prefix string, fn func(Info) error) error {
	if prefix != "" {
		// Checked as a key would be, so that no prefix names a folder outside.
		if err := checkKey("list", strings.TrimSuffix(prefix, "/")); err != nil {
			return err
		}
	}
	dir := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
	}
	date := d.serverTime()
	err := d.walkKeys(ctx, dir, prefix, func(i Info) error {
		i.Date = date
		return fn(i)
	})
	var stop *stopList
	if errors.As(err, &stop) {
		return stop.err
	}
	if err != nil {
		return dirError("list", prefix, err)
	}
	return nil
}

// stopList carries the caller's own error out of the walk, unwrapped.
type stopList struct{ err error }

func (s *stopList) Error() string { return s.err.Error() }

func (d *dirStore) walkKeys(ctx context.Context, dir, prefix string, fn func(Info) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := d.root.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != "." {
		return nil // no key has this prefix, or the folder went while we walked
	}
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		if key == tempDir {
			continue
		}
		if e.IsDir() {
			if k := key + "/"; strings.HasPrefix(k, prefix) || strings.HasPrefix(prefix, k) {
				if err := d.walkKeys(ctx, key, prefix, fn); err != nil {
					return err
				}
			}
			continue
		}
		if !strings.HasPrefix(key, prefix) || !e.Type().IsRegular() || checkKey("list", key) != nil {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		if err := fn(d.fileInfo(key, fi)); err != nil {
			return &stopList{err}
		}
	}
	return nil
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
