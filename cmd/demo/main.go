// Command demo shows nightferry on one machine that has nothing but Go: it
// starts an S3 server on loopback, publishes parts of the Go installation as
// two channels, changes them, publishes again, pulls to two sites that start
// from different points, verifies both, and prints what moved. Then it starts a
// Core and six agents, each a process, enrols them, publishes, kills one in the
// middle of its transfer, and prints the fleet. With --stay it stays up.
//
// With --speed 720 it shows a night instead, in fast motion: three regions
// start and stop as their windows come, a flipped bit is found and repaired, a
// halt stops all of it, and the reports of the morning are mailed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	stay := flags.Bool("stay", false, "keep the fleet up until Ctrl-C")
	speed := flags.Int64("speed", 0, "show a night instead, so many times as fast: 720 makes an hour 5 s")
	if err := flags.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		os.Exit(2)
	}
	if err := run(ctx, os.Stdout, *speed, *stay); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
