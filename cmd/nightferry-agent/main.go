// Command nightferry-agent makes a server a site. It enrolls the server at a Core, keeps its folders at the releases
// that the Core desires, and reports the outcome of every file.
//
// main.go starts it, root.go lists the verbs, exit.go defines the exit codes.
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
