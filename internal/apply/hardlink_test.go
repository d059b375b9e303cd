package apply

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestHardLinksStayApart: an administrator keeps hard links to files of the target, outside of it. Releases that change
// only the time or mode of these files, move them, change or drop them, leave the other names as they are.
func TestHardLinksStayApart(t *testing.T) {
	start := tree{"touched": blob(1, 3_000_000), "moved": blob(2, 5000), "edited": "e", "dropped": "d", "same": "s"}
	p, src, dst := dirs(t, start)
	p.publish(src)
	p.must(dst, nil)
	outside := t.TempDir()
	before := map[string]os.FileInfo{}
	for name := range start {
		other := filepath.Join(outside, name)
		try(t, os.Link(filepath.Join(dst, name), other))
		info, err := os.Stat(other)
		try(t, err)
		before[name] = info
	}
	lay(t, src, tree{"touched": start["touched"], "moved.new": start["moved"], "edited": "edited", "same": "s"})
	for _, name := range []string{"touched", "moved.new"} {
		try(t, os.Chmod(filepath.Join(src, name), 0o400))
		try(t, os.Chtimes(filepath.Join(src, name), time.Time{}, epoch.Add(1000*time.Hour)))
	}
	p.publish(src)
	p.must(dst, nil)
	sameTree(t, src, dst)
	for name, was := range before {
		now, err := os.Stat(filepath.Join(outside, name))
		try(t, err)
		if now.Mode() != was.Mode() || !now.ModTime().Equal(was.ModTime()) || seen(t, outside)[name] != start[name] {
			t.Errorf("%s: another name of it became %v %v, was %v %v", name, now.Mode(), now.ModTime(), was.Mode(), was.ModTime())
		}
	}
	if r := p.must(dst, nil); !r.NoOp {
		t.Errorf("the second pull did %v", r.outcomes())
	}
}
