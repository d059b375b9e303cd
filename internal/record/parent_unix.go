//go:build unix

package record

import (
	"path"

	"nightferry/internal/durable"
)

// likeParent gives a new file or folder the access of its parent. A Writer
// does not know the domain's access, which is stored only in the folder.
func likeParent(root *durable.Root, name string, dir bool) error {
	info, err := root.Lstat(path.Dir(name))
	if err != nil {
		return err
	}
	a := access{group: 0}
	if info.Mode()&0o070 == 0 {
		a.group = -1
	}
	return root.Chmod(name, a.fileMode(dir))
}
