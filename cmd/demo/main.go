// Command demo shows nightferry on one machine that has only Go. It starts an S3 server on loopback, publishes parts of
// the Go installation as two channels, changes them and publishes again. It pulls to two sites with different starting
// points, verifies both and prints how much data moved. Then it starts a Core and six agents as processes, enrolls
// them, publishes, kills one agent during its transfer and prints the fleet. With --stay the fleet keeps running.
//
// With --speed 720 it shows one night in fast motion instead. Three regions start and stop with their windows, a
// flipped bit is found and repaired, a halt stops all transfers, and the morning reports are mailed.
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
