package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// The conditions that callers branch on.
var (
	// ErrLink: a symlink, junction or other reparse point is in the path.
	ErrLink = errors.New("a link or reparse point stands in the path")
	// ErrBusy: another process holds the lock.
	ErrBusy = errors.New("in use by another process")
	// ErrLocked: another process has the file open in a way that prevents its replacement or deletion. Test with
	// [IsLocked], which also knows the system's own errors.
	ErrLocked = errors.New("locked by another process")
	// ErrImmutable: an attribute of the file or of its folder (chattr +i, +a) forbids the change to every account.
	// Waiting does not help.
	ErrImmutable = errors.New("marked immutable or append-only")
	// ErrNotRegular: the name belongs to a folder, a pipe or a device instead of a file.
	ErrNotRegular = errors.New("it is not a regular file")
	// ErrTooLarge: a file has more bytes than its kind may have.
	ErrTooLarge = errors.New("it is too large")
	// ErrExposed: other accounts can read a key file.
	ErrExposed = errors.New("others can read it")
)

// IsLocked reports whether err means that a file cannot be replaced or deleted now because another process uses it.
// A later attempt can succeed.
func IsLocked(err error) bool { return errors.Is(err, ErrLocked) || isLockedErrno(err) }

// Patiently repeats an act for up to three seconds while another process has the file open. Windows before Server
// 2019, and Wine, cannot replace or delete a file while it is being read, which usually takes a moment.
func Patiently(act func() error) error {
	const step, tries = 10 * time.Millisecond, 300
	for n := 1; ; n++ {
		err := act()
		if err == nil || n == tries || !IsLocked(err) {
			return err
		}
		time.Sleep(step)
	}
}

// IsDiskFull reports whether err means that the volume, or the account's quota on it, is full.
func IsDiskFull(err error) bool { return isFullErrno(err) }

// IsReadOnly reports whether err means that the volume is mounted read-only or write-protected.
func IsReadOnly(err error) bool { return isReadOnlyErrno(err) }

// wrap adds the act and the name once. It drops the system call and path of os's own errors, which only repeat
// them.
func wrap(act, name string, err error) error {
	if err == nil {
		return nil
	}
	switch e := err.(type) {
	case *fs.PathError:
		err = e.Err
	case *os.LinkError:
		err = e.Err
	}
	return fmt.Errorf("%s %q: %w", act, name, err)
}
