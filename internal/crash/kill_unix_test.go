//go:build unix

package crash

import (
	"os"
	"syscall"
)

// die ends this process as the out-of-memory killer would: no deferred call runs, and no file is flushed or closed.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// killed reports whether die ended the process.
func killed(s *os.ProcessState) bool {
	w, ok := s.Sys().(syscall.WaitStatus)
	return ok && w.Signaled() && w.Signal() == syscall.SIGKILL
}
