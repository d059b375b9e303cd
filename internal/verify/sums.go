package verify

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"nightferry/internal/manifest"
)

// Sums writes the release's files as a list that "sha256sum -c" accepts, run
// in the target folder.
func Sums(w io.Writer, entries manifest.Next) error {
	out := bufio.NewWriterSize(w, 256<<10)
	for {
		e, err := entries()
		if err != nil {
			return err
		}
		if e == nil {
			return out.Flush()
		}
		if e.Kind != manifest.File {
			continue
		}
		name, escaped := escape(e.Path)
		if escaped {
			name = `\` + e.Digest.String() + "  " + name
		} else {
			name = e.Digest.String() + "  " + name
		}
		if _, err := fmt.Fprintln(out, name); err != nil {
			return err
		}
	}
}

// escape writes a name as coreutils do: a line whose name needed it begins
// with a backslash.
func escape(name string) (string, bool) {
	if !strings.ContainsAny(name, "\\\n\r") {
		return name, false
	}
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name), true
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
