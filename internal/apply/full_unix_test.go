//go:build !windows

package apply

import "syscall"

var errDiskFull error = syscall.ENOSPC
