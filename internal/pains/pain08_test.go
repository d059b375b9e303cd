package pains

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/testbed"
	"nightferry/internal/verify"
)

// rclone #7881 and #4855: a multipart upload has no comparable hash, so only its size is compared.
//
// An image of several packs is verified by the plain SHA-256 of all its bytes. A flipped bit that leaves size and times
// unchanged is found wherever it is.
func TestPain08_LargeImage(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	size := 45 << 20 // more than two packs, more than one part of any multipart upload
	lay(t, w.src, tree{"disk.img": slices.Concat(noise(1, size/2), make([]byte, 5<<20), noise(2, size/2)), "small": noise(3, 10)})
	w.mustPush(nil)
	if packs := testbed.Keys(t, w.store, "packs/"); len(packs) < 2 {
		t.Fatalf("the image takes only %d packs", len(packs))
	}
	site := w.site()
	w.arrive(site)
	if found, totals := w.verify(site, verify.Options{}); len(found) > 0 || totals.Bytes != int64(size+5<<20+10) {
		t.Fatalf("%d bytes were read, found %v", totals.Bytes, found)
	}
	img := filepath.Join(site, "disk.img")
	info, err := os.Stat(img)
	must(t, err)
	for _, at := range []int64{0, int64(size/2) + 1<<20, info.Size() - 1} { // the first byte, in the hole, the last one
		flipAt(t, img, at, info.ModTime())
		believe(t, site)
		if p, err := w.pull(site, nil); err != nil || !p.NoOp {
			t.Fatalf("a stat tells that byte %d changed, and this test proves nothing: %v %v", at, p.files, err)
		}
		found, _ := w.verify(site, verify.Options{})
		if len(found) != 1 || found[0].Path != "disk.img" || found[0].Problem != verify.Hash {
			t.Errorf("byte %d changed: found %v", at, found)
		}
		p, err := w.pull(site, func(o *apply.Options) { o.Rehash = true })
		must(t, err)
		w.arrived(p, site)
		if p.files["disk.img"].Outcome != runs.FileRepaired || p.BytesFetched > 1<<20 {
			t.Errorf("byte %d changed: outcome %v, %d bytes fetched", at, p.files["disk.img"].Outcome, p.BytesFetched)
		}
	}
}

// believe changes a site's catalogue so that every file counts as verified in its present state. A failing disk changes
// bytes without changing any stat field, while an edit always changes the ctime.
func believe(t testing.TB, site string) {
	t.Helper()
	const name = manifest.StateDir + "/catalogue"
	root, err := durable.Open(site, durable.Options{})
	must(t, err)
	defer root.Close()
	now := map[string]scan.Stat{}
	must(t, scan.Walk(t.Context(), site, scan.WalkOptions{}, func(it scan.Item) error {
		now[it.Path] = it.Stat
		return it.Err
	}))
	old, err := scan.OpenCatalogue(root, name)
	must(t, err)
	defer old.Close()
	w, err := scan.CreateCatalogue(root, name)
	must(t, err)
	for {
		rec, err := old.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if rec.Kind == scan.File {
			rec.Stat = now[rec.Path]
		}
		must(t, w.Add(*rec))
	}
	must(t, w.Commit(old.Header()))
}

func flipAt(t testing.TB, name string, at int64, when time.Time) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0x20
	_, err = f.WriteAt(b[:], at)
	must(t, err)
	must(t, f.Close())
	must(t, os.Chtimes(name, when, when))
}

// A check that cannot run does not pass: neither for a file, nor for a release whose file list cannot be read.
func TestPain08_CheckThatCannotBeMade(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"good": noise(1, 100_000), "dir/secret": noise(2, 1000)})
	w.mustPush(nil)
	site := w.site()
	w.arrive(site)
	t.Run("a folder in place of a file", func(t *testing.T) {
		must(t, os.Rename(filepath.Join(site, "good"), filepath.Join(site, "good.aside")))
		must(t, os.Mkdir(filepath.Join(site, "good"), 0o755))
		found, _ := w.verify(site, verify.Options{})
		if !slices.ContainsFunc(found, func(f verify.Finding) bool { return f.Path == "good" && f.Problem == verify.Kind }) {
			t.Errorf("found %v", found)
		}
		must(t, os.Remove(filepath.Join(site, "good")))
		must(t, os.Rename(filepath.Join(site, "good.aside"), filepath.Join(site, "good")))
	})
	t.Run("no list", func(t *testing.T) {
		for _, key := range testbed.Keys(t, w.store, "packs/") {
			testbed.Truncate(t, w.store, key, 60)
		}
		next, err := w.entries(t.Context())
		if err == nil {
			_, err = verify.Run(t.Context(), site, next, verify.Options{}, func(verify.Finding) {})
		}
		if err == nil {
			t.Error("verified without a list of files")
		}
	})
}

// entries streams the head's entries.
func (w *world) entries(ctx context.Context) (manifest.Next, error) {
	r, err := w.open(ctx, w.store)
	if err != nil {
		return nil, err
	}
	head, err := r.Head(ctx, channel)
	if err != nil {
		return nil, err
	}
	rel, err := r.Release(ctx, channel, head.Number, head.Release)
	if err != nil {
		return nil, err
	}
	pages := repo.NewMemoryPages()
	return r.Manifests(pages).Entries(rel), r.Manifests(pages).Load(ctx, r.Index, rel.PageIDs(), repo.FetchOptions{})
}

// verify compares a folder with the head, and returns the findings without those about the site's own files.
func (w *world) verify(site string, o verify.Options) (found []verify.Finding, totals verify.Totals) {
	w.t.Helper()
	next, err := w.entries(w.t.Context())
	must(w.t, err)
	totals, err = verify.Run(w.t.Context(), site, next, o, func(f verify.Finding) {
		if f.Problem != verify.Extra {
			found = append(found, f)
		}
	})
	must(w.t, err)
	return found, totals
}
