package apply

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/runs"
)

// folding mounts a volume that ignores case and lists all names in lower case.
func folding(t *testing.T) (dst string) {
	t.Helper()
	volume := filepath.Join(t.TempDir(), "volume")
	f := fileSystem{name: "lowntfs-3g", make: []string{"mkfs.ntfs", "-q", "-F"}, mount: []string{"lowntfs-3g", "-o", "ignore_case"}}
	f.lend(t, volume)
	return filepath.Join(volume, "target")
}

// TestAlteredNames: a file system lists names in another case than they were made in. A second pull moves nothing, with
// and without prune, also after the release has changed the case of its names.
func TestAlteredNames(t *testing.T) {
	for _, prune := range []bool{false, true} {
		p, src, _ := dirs(t, tree{"README.TXT": "r", "Sub/A.bin": blob(1, 5000), "Sub/Deep/B": "b", "Old/Gone": "g"})
		dst := folding(t)
		for n, tr := range []tree{nil, {"ReadMe.txt": "r", "SUB/a.BIN": blob(1, 5000), "SUB/Deep/B": "b, changed", "new": "n"}, {"README.txt": "r2", "sub": "a file"}} {
			if tr != nil {
				lay(t, src, tr)
			}
			p.publish(src)
			p.must(dst, func(o *Options) { o.Prune = prune })
			for range 2 {
				if r := p.must(dst, func(o *Options) { o.Prune = prune }); !r.NoOp || len(r.files) > 0 {
					t.Errorf("release %d, prune %t: a second pull did something: %v", n+1, prune, r.outcomes())
				}
			}
			if r := p.must(dst, func(o *Options) { o.Prune, o.Rehash = prune, true }); len(r.files) > 0 {
				t.Errorf("release %d, prune %t: %v", n+1, prune, r.outcomes())
			}
			checkField(t, dst)
			checkLower(t, src, dst)
			try(t, os.RemoveAll(filepath.Join(dst, stateDir))) // a lost record: the files on disk are recognized
			if r := p.must(dst, func(o *Options) { o.Prune = prune }); r.BytesFetched > 0 || len(r.files) > 0 {
				t.Errorf("release %d, prune %t: without the record: %v", n+1, prune, r.outcomes())
			}
		}
	}
}

// checkLower compares the target with the source, whose names it lists in lower case.
func checkLower(t *testing.T, src, dst string) {
	t.Helper()
	have := seen(t, dst)
	for name, text := range seen(t, src) {
		if have[strings.ToLower(name)] != text {
			t.Errorf("%s: %.40q", name, have[strings.ToLower(name)])
		}
		delete(have, strings.ToLower(name))
	}
	if len(have) > 0 {
		t.Errorf("too much: %v", brief(have))
	}
}

// TestNamesThatFoldToOne: of two names that the target takes for one, the first is put in place and the second fails
// with its reason. No run replaces or deletes a file that an earlier one wrote.
func TestNamesThatFoldToOne(t *testing.T) {
	for _, prune := range []bool{false, true} {
		p, src, _ := dirs(t, tree{"README": "first", "readme": "second", "Dir/a": "a", "dir/b": "b", "k": "k"})
		dst := folding(t)
		p.unportable = true
		p.publish(src)
		for n := range 3 {
			r, err := p.pull(dst, func(o *Options) { o.Partial, o.Prune = true, prune })
			if err != nil || r.Verdict != Incomplete {
				t.Fatal(r.Verdict, err)
			}
			if n > 0 && r.BytesFetched > 0 {
				t.Errorf("pull %d fetched %d bytes", n, r.BytesFetched)
			}
			for path, e := range r.files {
				var unheld *unheldError
				failed := path == "readme" || path == "dir" || path == "dir/b"
				if failed != (e.Outcome == runs.FileFailed) || failed && !errors.As(e.Cause, &unheld) || n > 0 && !failed {
					t.Errorf("pull %d, prune %t: %s %s: %v", n, prune, path, e.Outcome, e.Cause)
				}
			}
			if have := seen(t, dst); have["readme"] != "first" || have["dir/a"] != "a" || len(have) != 4 {
				t.Errorf("pull %d: %v", n, have)
			}
		}
	}
}
