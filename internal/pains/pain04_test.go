package pains

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nightferry/internal/push"
	"nightferry/internal/runs"
	"nightferry/internal/s3test"
)

// aws-cli #9596, azcopy #1226: a rename that only changes case creates a second file, or is not transferred.
func TestPain04_CaseOnlyRename(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	lay(t, w.src, tree{"Setup.EXE": noise(1, 9_000_000), "Lang/de.txt": noise(2, 300_000), "keep": []byte("as it is")})
	w.mustPush(nil)
	site := w.site()
	w.arrive(site)
	for _, name := range []string{"Setup.EXE", "Lang"} { // in two steps: Wine 8 keeps the old case if the rename is done in one
		aside := filepath.Join(w.src, "aside")
		must(t, os.Rename(filepath.Join(w.src, name), aside))
		must(t, os.Rename(aside, filepath.Join(w.src, strings.ToLower(name))))
	}
	if p := w.mustPush(func(o *push.Options) { o.AllowDeletes = true }); p.New > 64<<10 {
		t.Errorf("the push stored %d bytes for two changes of case", p.New)
	}
	behind, wire := s3test.CountHTTP(t, w.bucket)
	p, err := w.pullFrom(behind.Open(t), site, nil)
	must(t, err)
	w.arrived(p, site)
	if down := wire.Counts().Down; down > 64<<10 || p.BytesFetched != 0 {
		t.Errorf("%d bytes came over the wire, %d of content, for two changes of case", down, p.BytesFetched)
	}
	for _, name := range []string{"setup.exe", "lang/de.txt"} {
		if p.files[name].Outcome != runs.FileMoved {
			t.Errorf("%s: outcome %q, want moved", name, p.files[name].Outcome)
		}
	}
}

func TestPain04_NamesThatWindowsCannotHold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("such names cannot be made on Windows")
	}
	bad := []string{"CON", "dir/aux", "Prn.txt", "com1.log", "trailing.", "dir/trailing ", "Readme", "README", "café/x", "CAFÉ/y", "what?", "a:stream", `back\slash`}
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"fine": []byte("1"), "dir/fine": []byte("2")})
	for _, name := range bad {
		put(t, w.src, name, []byte(name))
	}
	if _, err := os.Lstat(filepath.Join(w.src, "readme")); err == nil {
		t.Skip("this file system ignores case: two such names cannot be made here")
	}
	_, err := w.push(nil)
	var guard *push.GuardError
	if !errors.As(err, &guard) || guard.Guard != "names" {
		t.Fatalf("error %v, want the names guard", err)
	}
	list := strings.Join(guard.Paths, "\n")
	for _, name := range []string{"CON", "dir/aux", "Prn.txt", "com1.log", "trailing.", "dir/trailing ", "Readme", "café", "what?", "a:stream"} {
		if !strings.Contains(list, name) {
			t.Errorf("the list lacks %q:\n%s", name, list)
		}
	}
	if !strings.Contains(list, `back\slash`) && !strings.Contains(list, `back\\slash`) {
		t.Errorf("the list lacks back\\slash:\n%s", list)
	}
	if strings.Contains(list, "fine") {
		t.Errorf("the list blames a good name:\n%s", list)
	}
	if _, err := w.pull(w.site(), nil); err == nil {
		t.Error("something was published")
	}
	for _, name := range bad {
		if top, _, _ := strings.Cut(name, "/"); top != "dir" {
			name = top
		}
		must(t, os.RemoveAll(filepath.Join(w.src, name)))
	}
	w.mustPush(nil)
	w.arrive(w.site())
}
