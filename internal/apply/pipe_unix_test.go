//go:build unix

package apply

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nightferry/internal/runs"
)

// Named pipes are not read: one in place of a release's file, and one in a folder of seeds.
func TestPipeInTheWayOfAFile(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	seeds := t.TempDir()
	for _, dir := range []string{dst, seeds} {
		name := filepath.Join(dir, "a.txt")
		if dir == dst {
			try(t, os.Remove(name))
		}
		try(t, unix.Mkfifo(name, 0o644))
	}
	r := p.must(dst, func(o *Options) { o.Seeds = []string{seeds} })
	sameTree(t, src, dst)
	wantOutcomes(t, r, map[string]runs.Outcome{"a.txt": runs.FileRepaired})
}
