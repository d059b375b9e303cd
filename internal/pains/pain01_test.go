package pains

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/runs"
)

// aws-cli #9693 and #3273: an edit that keeps the size is not transferred, because its time is older. nightferry must
// transfer it even if size and time are unchanged, and must also find such an edit at a site.
func TestPain01_SameSizeEdit(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	w.ahead = time.Hour // so that the Core trusts its stat cache although the files are recent
	lay(t, w.src, tree{"small.inf": []byte("version=1.0"), "large.img": noise(1, 3_000_000), "other": noise(2, 50_000)})
	w.mustPush(nil)
	near, far := w.site(), w.site()
	w.arrive(near)
	w.arrive(far)
	if again := w.mustPush(nil); !again.Unchanged || again.Read != 0 {
		t.Fatalf("a push of the same files read %d bytes: the stat cache is not in use, and this test proves nothing", again.Read)
	}
	for _, tt := range []struct {
		name string
		when time.Time
	}{
		{"size kept, time older", longAgo.Add(-24 * time.Hour)},
		{"size and time kept", longAgo.Add(-24 * time.Hour)}, // as the previous edit has left it
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.t = t
			for _, name := range []string{"small.inf", "large.img"} {
				flipInPlace(t, filepath.Join(w.src, name), tt.when)
			}
			if p := w.mustPush(nil); p.Unchanged || p.Changed != 2 {
				t.Errorf("the push saw %d changes, want 2", p.Changed)
			}
			w.arrive(near)
			w.arrive(far)
		})
	}
	t.Run("at the site", func(t *testing.T) {
		w := *w
		w.t = t
		for _, name := range []string{"small.inf", "large.img"} {
			info, err := os.Stat(filepath.Join(near, name))
			must(t, err)
			flipInPlace(t, filepath.Join(near, name), info.ModTime())
		}
		p := w.arrive(near)
		if p.NoOp || p.files["small.inf"].Outcome != runs.FileRepaired || p.files["large.img"].Outcome != runs.FileRepaired {
			t.Errorf("outcomes %v", p.files)
		}
	})
}

// A file may change twice within one tick of its clock, so that time and size do not reveal the second change. Files
// that were recent when they were read must be read again, once.
func TestPain01_YoungFile(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"young": noise(1, 5000)})
	w.ahead = -time.Hour // its ctime is later than this, however slow the machine is
	w.mustPush(nil)
	if p := w.mustPush(nil); p.Read != 5000 || !p.Unchanged {
		t.Errorf("a file that was young when it was read: %d bytes were read, unchanged: %v; want all 5000", p.Read, p.Unchanged)
	}
	w.ahead = time.Hour
	for _, want := range []int64{5000, 0} {
		if p := w.mustPush(nil); p.Read != want {
			t.Errorf("an hour later: %d bytes were read, want %d", p.Read, want)
		}
	}
}

// flipInPlace changes one byte in the middle of a file, as an editor or a bad disk would, and sets its time.
func flipInPlace(t testing.TB, name string, when time.Time) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(b[len(b)/2:len(b)/2+1], int64(len(b)/2))
	must(t, err)
	must(t, f.Close())
	must(t, os.Chtimes(name, when, when))
}
