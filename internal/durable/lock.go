package durable

import (
	"errors"
	"fmt"
	"os"
)

// Lock takes an exclusive lock on a file of the root. It creates the file if it is missing and never removes it.
// The system drops the lock when the process ends, however it ends. If another process holds the lock, Lock returns
// [ErrBusy] without waiting. The lock does not restrain programs that do not use it. An entry of another kind that
// has the name is set aside (see [SetAside]).
func Lock(r *Root, name string) (unlock func() error, err error) {
	if err := r.check(name, false); err != nil {
		return nil, wrap("lock", name, err)
	}
	if _, err := MakeRoom(r, name, false); err != nil {
		return nil, wrap("lock", name, err)
	}
	// Bypass the observer: the lock file holds no data that a crash or a replay could lose.
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
