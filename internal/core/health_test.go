package core_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// untilChecked waits until the bucket was checked after a moment of the Core's.
func (w *world) untilChecked(after time.Time) {
	w.t.Helper()
	w.until("a check of the bucket", func() bool {
		st, err := os.Stat(filepath.Join(w.options.Data, "state", "bucket.json"))
		return err == nil && st.ModTime().After(after)
	})
}

// TestPain15_LostObjectIsNoticed: an object is lost from the bucket, and nobody
// asks for it. The Core names it within a day, and what the remedy says heals.
func TestPain15_LostObjectIsNoticed(t *testing.T) {
	t.Parallel()
	for name, pick := range map[string]func(w *world) string{
		"a pack":             func(w *world) string { return testbed.Keys(t, w.store, repo.PacksPrefix)[0] },
		"a release":          func(*world) string { return repo.ReleaseKey("package", 1) },
		"a segment's object": func(w *world) string { return segmentOf(t, w) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.write("a.sys", "alpha")
			w.publish("package")
			w.joined("osaka", nil)
			w.untilCurrent(1, "osaka")
			w.untilChecked(time.Time{})
			if w.has(string(kinds.BucketBad)) {
				t.Fatalf("nothing is wrong yet: %q", w.texts(string(kinds.BucketBad)))
			}
			key := pick(w)
			content := testbed.ReadObject(t, w.store, key)
			testbed.DeleteObject(t, w.store, key)
			w.restart() // checks nothing again
			before := time.Now()
			w.ahead.Store(int64(24 * time.Hour))
			text := w.untilIncident(string(kinds.BucketBad))
			if !strings.Contains(text, key) || !strings.Contains(text, "nightferry") && !strings.Contains(text, "push again") && !strings.Contains(text, "restore") {
				t.Errorf("the text names no object, or no remedy: %q", text)
			}
			w.untilChecked(before)
			if name == "a pack" {
				w.forget()
			} else {
				testbed.WriteObject(t, w.store, key, content)
			}
			w.publish("package") // the source has not changed
			w.untilOver(string(kinds.BucketBad))
			w.joined("tokyo", func(o *agent.Options) { o.Now = w.right })
			w.untilCurrent(1, "tokyo")
		})
	}
}

func segmentOf(t *testing.T, w *world) string {
	t.Helper()
	for _, key := range testbed.Keys(t, w.store, "index/") {
		if key != repo.RootKey {
			return key
		}
	}
	t.Fatal("no segment")
	return ""
}

// forget is nightferry fsck --forget-missing.
func (w *world) forget() {
	w.t.Helper()
	dir, err := durable.Open(w.t.TempDir(), durable.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer dir.Close()
	r, err := repo.Open(w.t.Context(), w.store, repo.Options{Key: w.repoKey, Now: time.Now})
	if err == nil {
		_, err = collect.Fsck(w.t.Context(), r, r.Segments(dir), collect.FsckOptions{ForgetMissing: true}, nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestPain15_ReplayInTheFleet: who can write to the bucket puts an older signed
// head back. The Core says so at once, and a site takes nothing of it.
func TestPain15_ReplayInTheFleet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("driver.sys", "with a hole")
	stop := w.joined("osaka", nil)
	w.publish("package")
	w.untilCurrent(1, "osaka")
	old := testbed.ReadObject(t, w.store, repo.HeadKey("package"))
	w.write("driver.sys", "without")
	w.publish("package")
	w.untilCurrent(2, "osaka")
	w.untilMeasured("package", 2)
	newest := testbed.ReadObject(t, w.store, repo.HeadKey("package"))
	testbed.WriteObject(t, w.store, repo.HeadKey("package"), old)
	text := w.untilIncident(string(kinds.Store))
	if !strings.Contains(text, "older") {
		t.Errorf("%q", text)
	}
	stop()
	target := w.folder("osaka", "package")
	cached := pagesBelow(t, filepath.Join(target, manifest.StateDir))
	// The site has something to do, so that a run that trusted the head would fetch.
	if err := os.Remove(filepath.Join(target, "driver.sys")); err != nil {
		t.Fatal(err)
	}
	w.agent(filepath.Join(w.dir, "agents", "osaka"), nil)
	w.sync("osaka")
	w.until("a run that fails", func() bool {
		r, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", Limit: 1})
		return err == nil && len(r) == 1 && r[0].State == "failed"
	})
	if _, err := os.Stat(filepath.Join(target, "driver.sys")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the site took something of it: %v", err)
	}
	if now := pagesBelow(t, filepath.Join(target, manifest.StateDir)); now != cached {
		t.Errorf("the site keeps something of it:\n%s\nbefore:\n%s", now, cached)
	}
	testbed.WriteObject(t, w.store, repo.HeadKey("package"), newest)
	w.untilOver(string(kinds.Store))
	w.until("the file", func() bool {
		b, err := os.ReadFile(filepath.Join(target, "driver.sys"))
		return err == nil && bytes.Equal(b, []byte("without"))
	})
}

// pagesBelow lists the files below a folder, but for locks and journals.
func pagesBelow(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(d.Name(), "lock") {
			b.WriteString(strings.TrimPrefix(p, dir) + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
