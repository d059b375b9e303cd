package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// rot flips a byte of a file without changing its stat. If the file system keeps change times, rot writes the new
// stat to the catalogue. A disk that loses a bit has the same effect.
func rot(t *testing.T, dst, name string) {
	t.Helper()
	path := filepath.Join(dst, filepath.FromSlash(name))
	info, err := os.Stat(path)
	try(t, err)
	b, err := os.ReadFile(path)
	try(t, err)
	b[len(b)/2] ^= 1
	try(t, os.WriteFile(path, b, info.Mode()))
	try(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	s, done, err := openSite(dst, Options{Now: time.Now})
	try(t, err)
	old, err := s.target.openRecords(catalogueName)
	try(t, err)
	w, err := scan.CreateCatalogue(s.target.root, catalogueName)
	try(t, err)
	try(t, s.target.walkTarget(t.Context(), nil, func(it scan.Item) error {
		rec, err := old.findRecord(it.Path)
		if err == nil && rec != nil {
			if rec.Kind == scan.File {
				rec.Stat = it.Stat
			}
			err = w.Add(*rec)
		}
		return err
	}))
	header := *old.header()
	old.close()
	try(t, w.Commit(header))
	try(t, done())
}

// TestSuspectIsReadAgain: a finding of a check is repaired although the file's stat is unchanged. Only the wrong
// chunks are fetched, and the finding is then forgotten.
func TestSuspectIsReadAgain(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	rot(t, dst, "b/d/big.img")
	if r := p.must(dst, nil); r.Verdict != Verified || !r.NoOp {
		t.Fatalf("the damage is not the hidden one that this test is about: %+v", r.Result)
	}
	inspect := func(fn func(*Inspection)) {
		t.Helper()
		x, err := Inspect(dst, Options{Channel: "package", Now: time.Now})
		try(t, err)
		fn(x)
		try(t, x.Close())
	}
	inspect(func(x *Inspection) {
		x.Checks.Suspect("b/d/big.img", "hash: its SHA-256 is another")
		x.Checks.Suspect("a.txt", "time: a file that is right")
		try(t, x.Save())
	})
	r := p.must(dst, nil)
	sameTree(t, src, dst)
	wantOutcomes(t, r, map[string]runs.Outcome{"b/d/big.img": runs.FileRepaired})
	if e := r.files["b/d/big.img"]; e.Fetched == 0 || e.Fetched > 512<<10 || e.Cause == nil || e.Cause.Error() != "hash: its SHA-256 is another" {
		t.Errorf("fetched %d bytes, because %v", e.Fetched, e.Cause)
	}
	inspect(func(x *Inspection) {
		if x.Checks.Any() {
			t.Errorf("still suspect: %+v", x.Checks)
		}
		x.Checks.Began = time.Now().Unix() + 100
		try(t, x.Passed(t.Context()))
	})
	if r := p.must(dst, nil); !r.NoOp || r.OldestRead < time.Now().Unix()+50 {
		t.Errorf("the pass is not what the run rests on: %+v", r.Result)
	}
	// An unreadable file must not count as a clean result.
	rot(t, dst, "b/d/big.img")
	try(t, os.WriteFile(filepath.Join(dst, checksName), []byte("{"), 0o644))
	wantOutcomes(t, p.must(dst, nil), map[string]runs.Outcome{"b/d/big.img": runs.FileRepaired})
	sameTree(t, src, dst)
}

// TestRepairSaysWhy: each event for a repaired file contains the reason.
func TestRepairSaysWhy(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	try(t, os.Remove(filepath.Join(dst, "a.txt")))
	try(t, os.Truncate(filepath.Join(dst, "b/d/e.bin"), 10))
	big := filepath.Join(dst, "b/d/big.img")
	b, err := os.ReadFile(big)
	try(t, err)
	b[7] ^= 1
	try(t, os.WriteFile(big, b, 0o644))
	r := p.must(dst, nil)
	for name, why := range map[string]string{"a.txt": "missing: ", "b/d/e.bin": "size: ", "b/d/big.img": "hash: "} {
		if e := r.files[name]; e.Outcome != runs.FileRepaired || e.Cause == nil || !strings.HasPrefix(e.Cause.Error(), why) {
			t.Errorf("%s: %s because %v, want %s…", name, e.Outcome, e.Cause, why)
		}
	}
	sameTree(t, src, dst)
}

func TestInspectRefuses(t *testing.T) {
	if _, err := Inspect(filepath.Join(t.TempDir(), "none"), Options{Channel: "package", Now: time.Now}); err == nil {
		t.Error("a folder that is not there was inspected")
	}
	dst := t.TempDir()
	if _, err := Inspect(dst, Options{Channel: "package", Now: time.Now}); err == nil {
		t.Error("a folder without a record was inspected")
	}
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	if _, err := Inspect(dst, Options{Channel: "other", Now: time.Now}); err == nil {
		t.Error("another channel's folder was inspected")
	}
}
