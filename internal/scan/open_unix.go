//go:build unix

package scan

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a path of a walk for reading, and does not wait for the other end of
// a pipe that has taken a file's place since.
func Open(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		// A file with a lease (fcntl(2)), which a file server takes for its
		// client. The system revokes it, which takes as long as it takes.
		return root.Open(path)
	}
	return f, err
}

// OpenStill is [Open] for who needs the bytes to stay as they are while it reads.
// Unix has no means for that: compare [StatFile] before and after.
func OpenStill(root *os.Root, path string) (*os.File, error) { return Open(root, path) }

// Vanished reports whether an error says that a path, which was there, is gone.
func Vanished(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }
