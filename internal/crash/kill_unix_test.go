//go:build unix

package crash

import (
	"os"
	"syscall"
)

// die ends this process as the system's out-of-memory killer would: nothing
// more of it runs, no file is flushed or closed by it.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// killed reports whether die ended the process.
func killed(s *os.ProcessState) bool {
	w, ok := s.Sys().(syscall.WaitStatus)
	return ok && w.Signaled() && w.Signal() == syscall.SIGKILL
}
