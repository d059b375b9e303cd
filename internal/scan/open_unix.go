//go:build unix

package scan

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a path of a walk for reading. If a pipe has replaced the file,
// Open does not wait for the pipe's other end.
func Open(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		// The file has a lease (fcntl(2)), for example of a file server for
		// its client. The system revokes it, which may take any time.
		return root.Open(path)
	}
	return f, err
}

// OpenStill is [Open] for callers whose bytes must not change while they
// read. Unix cannot guarantee that: compare [StatFile] before and after.
func OpenStill(root *os.Root, path string) (*os.File, error) { return Open(root, path) }

// Vanished reports whether an error means that a path no longer exists.
func Vanished(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }
