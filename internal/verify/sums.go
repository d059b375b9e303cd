package verify

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"nightferry/internal/manifest"
)

// Sums writes the release's files in the format of "sha256sum -c", with paths relative to the target folder.
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
		name, escaped := escapeName(e.Path)
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

// escapeName escapes a name as coreutils do: the line of an escaped name starts with a backslash.
func escapeName(name string) (string, bool) {
	if !strings.ContainsAny(name, "\\\n\r") {
		return name, false
	}
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name), true
}

func formatStamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
