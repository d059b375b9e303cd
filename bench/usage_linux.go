package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// peakRSS returns the peak resident size in bytes of a process that has
// ended.
func peakRSS(p *os.ProcessState) (int64, error) {
	r, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("read peak memory: the system does not tell")
	}
	return r.Maxrss << 10, nil // Linux counts KiB
}

// syncDisk flushes the file system that holds path.
func syncDisk(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync the disk of %s: %w", path, err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the disk of %s: %w", path, err)
	}
	return nil
}

// pauseProcess stops a process without ending it, until continueProcess.
func pauseProcess(p *os.Process) error    { return p.Signal(syscall.SIGSTOP) }
func continueProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
