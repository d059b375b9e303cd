package pains

import (
	"strings"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// aws-cli #3514, s5cmd #260, rclone #759: copies that fail on Windows. This file runs under Wine as well.

// Paths longer than the old Windows limit of 260 characters arrive like any other.
func TestPain13_LongPaths(t *testing.T) {
	w := newWorld(t, plan{})
	deep := strings.Repeat("a folder of forty characters, more or less/", 8) + "file.txt"
	long := strings.Repeat("n", 200) + ".bin"
	lay(t, w.src, tree{deep: []byte("deep down"), long: noise(1, 1000), "short": []byte("1")})
	w.mustPush(nil)
	site := w.site()
	p := w.arrive(site)
	for _, name := range []string{deep, long} {
		if p.files[name].Outcome != runs.FileAdded {
			t.Errorf("%d characters: outcome %q", len(name), p.files[name].Outcome)
		}
	}
	put(t, w.src, deep, []byte("deep down, and edited"))
	w.mustPush(nil)
	w.arrive(site)
}

// A file that a program holds open is named, and the run is never "verified". With wait, nothing is changed; with
// partial, all other files are.
func TestPain13_LockedFile(t *testing.T) {
	for _, partial := range []bool{false, true} {
		w, site := twoReleases(t)
		was := look(t, site)
		held := []string{"edit", "gone", "swap-b"}
		locked := func(o *apply.Options) { o.Partial, o.Observer = partial, locks(held...) }
		p, err := w.pull(site, locked)
		must(t, err)
		if p.Verdict != apply.Incomplete {
			t.Errorf("verdict %q with files in use", p.Verdict)
		}
		now := look(t, site)
		for _, name := range held {
			if e := p.files[name]; e.Outcome != runs.FileLocked || !durable.IsLocked(e.Cause) {
				t.Errorf("%s is in use: outcome %q, cause %v", name, e.Outcome, e.Cause)
			}
			if now[name] != was[name] {
				t.Errorf("%s is in use, and changed to %s", name, now[name])
			}
		}
		want := runs.FileAdded
		if !partial {
			want = ""
			same(t, was, now)
		}
		if got := p.files["added"].Outcome; got != want {
			t.Errorf("partial %t: a file that is free was %q, want %q", partial, got, want)
		}
		// A no-op must report it, too.
		if p, err = w.pull(site, locked); err != nil || p.Verdict != apply.Incomplete {
			t.Errorf("again: verdict %q, %v", p.Verdict, err)
		}
		w.arrive(site)
	}
}

// locks returns an observer that reports these files as in use for every operation.
func locks(names ...string) observer {
	return func(op durable.Op) error {
		for _, n := range names {
			if op.Name == n && (op.Kind == durable.Probe || op.Kind == durable.Rename || op.Kind == durable.Remove) || op.To == n {
				return durable.ErrLocked
			}
		}
		return nil
	}
}
