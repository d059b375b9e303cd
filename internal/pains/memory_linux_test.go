package pains

import (
	"fmt"
	"os"
	"syscall"

	"nightferry/internal/testbed"
)

// inMemory puts the folder for temporary files on a file system in memory, if root runs the tests and this is no soak
// test. The tests create and sync hundreds of thousands of files, and none of them tests the disk. The returned
// function undoes it.
func inMemory() (undo func(), err error) {
	if os.Getuid() != 0 || testbed.Soak() {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "nightferry-pains-")
	if err != nil {
		return nil, err
	}
	if err := syscall.Mount("nightferry-pains", dir, "tmpfs", 0, "size=8g"); err != nil {
		fmt.Fprintf(os.Stderr, "no file system in memory (%v): on the disk\n", err)
		return func() { _ = os.Remove(dir) }, nil
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return nil, err
	}
	return func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = os.Remove(dir)
	}, nil
}
