// Command bench compares nightferry with rclone, restic and aws-cli on one machine and in one run. All tools get the
// same corpus of real content, the same S3 server, the same counting proxy and the same check of every result. Its part
// fleet puts a Core under the load of a thousand simulated and of seventy real agents. It writes docs/benchmarks.md.
package main

import (
	"context"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
