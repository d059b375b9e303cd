package agent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestCheckOfDamagedRecords spoils nightferry's own files in a target in each way, and orders a check, as the Core does. A damaged
// catalogue is set aside, and the check names what makes it anew; after an ordered run the channel is verified again. Other
// files are made anew by the check, also the journal of a commit that no run continues. No file of the target is lost.
func TestCheckOfDamagedRecords(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	target := filepath.Join(base, "package")
	files := tree(10, "one")
	w.start(w.enrolled(base), nil)
	w.publish(files, target)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.try(os.WriteFile(filepath.Join(target, "own.txt"), []byte("the site's own"), 0o644))
	files["own.txt"] = "the site's own"
	n := 0
	order := func(what string, check uint8) *wire.Finished {
		t.Helper()
		n++
		w.want(func(s *wire.State) {
			s.Desired[0].Start++
			s.Desired[0].Check, s.Desired[0].Verify = check, check != 0
		})
		var f *wire.Finished
		w.await("end of the run after "+what, func() bool { f = w.finished(n); return f != nil })
		return f
	}
	all := spoils()
	all["a pipe"] = func(path string) error { return syscall.Mkfifo(path, 0o600) }
	for _, name := range []string{"catalogue", "checks.json", "journal"} {
		own := filepath.Join(target, ".nightferry", name)
		for how, spoil := range all {
			what := name + ", " + how
			w.try(os.RemoveAll(own))
			w.try(spoil(own))
			f := order(what, wire.CheckFull)
			if name != "catalogue" {
				if f.Verdict != runs.Verified {
					t.Errorf("%s: %s: %s", what, f.Verdict, f.Error)
				}
				continue
			}
			if f.Verdict != runs.Different || !strings.Contains(f.Error, makesAnew) {
				t.Errorf("%s: %s: %s", what, f.Verdict, f.Error)
			}
			if _, err := os.Lstat(own); !os.IsNotExist(err) {
				t.Errorf("%s: it is not set aside: %v", what, err)
			}
			if f := order("the repair of "+what, 0); f.Verdict != runs.Verified || f.Deleted+f.Added != 0 {
				t.Errorf("%s: after the ordered run: %s: %+v", what, f.Verdict, f)
			}
			w.try(os.RemoveAll(own + ".damaged"))
		}
	}
	w.same(target, files)
}
