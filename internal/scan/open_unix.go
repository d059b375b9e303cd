//go:build unix

package scan

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a path of a walk for reading, and waits for nobody's other end:
// where a pipe has taken a file's place since, open(2) would wait for a writer.
func Open(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		// A file, of which somebody has a lease (fcntl(2)): a file server, for
		// its client. The system asks it back, which takes as long as it takes.
		return root.Open(path)
	}
	return f, err
}
