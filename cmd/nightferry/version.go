package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// formatNumber is the repository format that this program writes, and the
// newest that it reads.
const formatNumber = 1

// version returns the program's version as the Go toolchain stamped it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func newVersion(e *env) *cobra.Command {
	return e.command(verb{
		use:     "version",
		short:   "Print the versions of nightferry, Go and the repository format",
		long:    "Prints the version of this program, the Go version and system that it was built for, and the number of the repository format that it writes. A store of a newer format is refused, with both numbers.",
		example: "nightferry version",
		run: func(context.Context, []string) error {
			if e.json {
				e.event("version", struct {
					Version string `json:"version"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
					Format  int    `json:"format"`
				}{version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, formatNumber})
				return nil
			}
			e.print("nightferry %s\n%s %s/%s\nrepository format %d", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, formatNumber)
			return nil
		},
	})
}
