package reports

import (
	"fmt"
	"strings"
	"testing"

	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestOutcomesAreBounded: what a site reports of one run is held within a bound,
// whatever it repeats or makes up.
func TestOutcomesAreBounded(t *testing.T) {
	const most = 10_000
	text := strings.Repeat("x", 500)
	for name, tell := range map[string]func(i int) wire.File{
		"the same files": func(i int) wire.File {
			return wire.File{Outcome: runs.FileFailed, Ordinal: uint64(i % 100), Cause: text}
		},
		"no such files": func(i int) wire.File {
			return wire.File{Outcome: runs.FileFailed, Ordinal: uint64(100 + i), Cause: text}
		},
		"paths": func(i int) wire.File { return wire.File{Outcome: runs.FileDeleted, Path: fmt.Sprint(i)} },
		"paths and texts": func(i int) wire.File {
			return wire.File{Outcome: runs.FileDeleted, Path: fmt.Sprint(i % 10), Cause: text}
		},
	} {
		x := ordered{bound: 100, paths: map[string]outcome{}, most: most}
		held, texts := 0, 0
		for i := range 100_000 {
			x.addOutcome(outcome{File: tell(i)})
			held = max(held, len(x.entries)+len(x.paths))
		}
		for _, o := range x.entries {
			texts += len(o.From) + len(o.Cause)
		}
		for _, o := range x.paths {
			texts += len(o.Path) + len(o.From) + len(o.Cause)
		}
		if held > 200 || texts > most {
			t.Errorf("%s: %d outcomes are held, with %d bytes", name, held, texts)
		}
	}
}
