// Command nightferry-agent makes a server a site: it joins it to a Core, keeps
// its folders at the releases that the Core wants there, and reports what
// became of every file.
//
// main.go starts it, root.go lists the verbs, exit.go has the exit codes.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
