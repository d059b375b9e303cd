// Command demo shows nightferry on one machine that has nothing but Go: it
// starts an S3 server on loopback, publishes parts of the Go installation as
// two channels, changes them, publishes again, pulls to two sites that start
// from different points, verifies both, and prints what moved.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
