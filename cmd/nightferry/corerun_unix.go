//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyReload tells of each SIGHUP.
func notifyReload() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
