//go:build unix

package record

import (
	"path"

	"nightferry/internal/durable"
)

// likeParent gives what was just made the access of the folder it was made in:
// a Writer does not know the domain's, and the folder is where it is kept.
func likeParent(root *durable.Root, name string, dir bool) error {
	info, err := root.Lstat(path.Dir(name))
	if err != nil {
		return err
	}
	a := access{group: 0}
	if info.Mode()&0o070 == 0 {
		a.group = -1
	}
	return root.Chmod(name, a.mode(dir))
}
