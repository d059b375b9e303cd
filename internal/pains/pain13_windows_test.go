package pains

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"nightferry/internal/apply"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// A program opens a file as most programs do, with read sharing only.
func TestPain13_FileHeldByAProgram(t *testing.T) {
	for _, partial := range []bool{false, true} {
		w, site := twoReleases(t)
		was := look(t, site)
		name, err := windows.UTF16PtrFromString(filepath.Join(site, "edit"))
		must(t, err)
		h, err := windows.CreateFile(name, windows.GENERIC_READ, windows.FILE_SHARE_READ, nil, windows.OPEN_EXISTING, 0, 0)
		must(t, err)
		p, err := w.pull(site, func(o *apply.Options) { o.Partial = partial })
		if err != nil || p.Verdict != apply.Incomplete || p.files["edit"].Outcome != runs.FileLocked || !durable.IsLocked(p.files["edit"].Cause) {
			t.Errorf("verdict %q, outcome %v, %v", p.Verdict, p.files["edit"], err)
		}
		now := look(t, site)
		if now["edit"] != was["edit"] {
			t.Errorf("a file in use changed to %s", now["edit"])
		}
		if !partial {
			same(t, was, now)
		}
		must(t, windows.CloseHandle(h))
		w.arrive(site)
	}
}
