package durable

import (
	"errors"
	"fmt"
	"os"
)

// Lock takes an exclusive lock on a file of the root, which it creates when it
// is missing and leaves there. The system drops the lock when the process
// ends, however it ends. When another holds it, the error is [ErrBusy] and
// nothing waits. It is no protection against programs that do not ask.
func Lock(r *Root, name string) (unlock func() error, err error) {
	if err := r.check(name, true); err != nil {
		return nil, wrap("lock", name, err)
	}
	// Not through the observer: the lock file holds nothing that a crash or a
	// replay could lose.
	f, err := openOurs(r, name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, wrap("lock", name, err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		if errors.Is(err, ErrBusy) {
			return nil, fmt.Errorf("lock %q: %w: wait until it has finished, or end it", r.dir, err)
		}
		return nil, wrap("lock", name, err)
	}
	return func() error { return wrap("unlock", name, errors.Join(unlockFile(f), f.Close())) }, nil
}
