package scan

import (
	"os"
	"path/filepath"
)

// Open opens a path of a walk for reading. No folder of Windows holds a pipe.
func Open(root *os.Root, path string) (*os.File, error) {
	return root.Open(filepath.FromSlash(path))
}
