// Command nightferry carries a folder through an S3 bucket to other machines
// and proves that it arrived.
//
// main.go starts it, root.go lists the verbs, and each verb has a file of its
// own. What several verbs share: exit.go (every exit code), report.go (what is
// printed, for people and for programs), progress.go (what a terminal shows),
// session.go (how a repository is opened), keys.go (key files).
package main

import (
	"context"
	"os"

	"nightferry/internal/durable"
)

func main() {
	durable.KeepOwnerRights()
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
