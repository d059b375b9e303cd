package apply

import (
	"errors"
	"syscall"
)

// notFolder reports that a file stands where a name has a folder.
func notFolder(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
