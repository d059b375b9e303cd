package pains

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/s3test"
)

// rclone #2889, and every chunk store with one object per chunk: requests, not bytes, dominate the bill. The test
// counts requests as the server receives them.
func TestPain10_RequestBill(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	counted, wire := s3test.CountHTTP(t, w.bucket)
	store := counted.Open(t)
	const images = 6
	for i := range images {
		put(t, w.src, fmt.Sprintf("images/%d.wim", i), noise(uint64(i), 20<<20))
	}
	for i := range 2000 {
		put(t, w.src, fmt.Sprintf("drivers/%03d/%d.sys", i/10, i%10), noise(uint64(1000+i), 100+i*7%9000))
	}
	bill := func(what string, moved, most int64) {
		t.Helper()
		c := wire.Reset()
		t.Logf("%-28s %v, at most %d", what, c, most)
		if c.Requests() > most {
			t.Errorf("%s: %d requests for %d bytes, want at most %d", what, c.Requests(), moved, most)
		}
		if c.Kinds[s3test.KindList]+c.Kinds[s3test.KindHead] > 0 {
			t.Errorf("%s: no LIST and no HEAD from head to files: %v", what, c)
		}
	}
	push := func(what string) {
		t.Helper()
		_, err := w.pushTo(store, nil)
		must(t, err)
		up := wire.Counts().Up
		bill(what, up, up/(12<<20)+16) // not a design bound: it keeps pushes from growing; two reads are the last looks at the halt and at lost packs
	}
	pull := func(what, site string) {
		t.Helper()
		p, err := w.pullFrom(store, site, nil)
		must(t, err)
		bill(what, p.BytesWire, p.BytesWire/(12<<20)+10)
		w.arrived(p, site)
	}
	site := w.site()
	wire.Reset()
	push("first push")
	pull("first pull", site)

	// The next release: an edit in the middle of an image, a new image, some drivers changed, some gone, some moved.
	img := filepath.Join(w.src, "images/3.wim")
	info, err := os.Stat(img)
	must(t, err)
	flipAt(t, img, 7<<20, info.ModTime())
	put(t, w.src, "images/new.wim", noise(99, 15<<20))
	for i := 0; i < 2000; i += 37 {
		put(t, w.src, fmt.Sprintf("drivers/%03d/%d.sys", i/10, i%10), noise(uint64(5000+i), 3000))
	}
	must(t, os.RemoveAll(filepath.Join(w.src, "drivers/011")))
	must(t, os.Rename(filepath.Join(w.src, "drivers/012"), filepath.Join(w.src, "drivers/moved")))
	push("push of the next release")
	pull("pull of the next release", site)
	pull("first pull of two releases", w.site())
	for i := 0; i < 2000; i += 25 {
		if dir := i / 10; dir != 11 && dir != 12 { // gone, and moved
			must(t, os.Remove(filepath.Join(site, fmt.Sprintf("drivers/%03d/%d.sys", dir, i%10))))
		}
	}
	pull("repair of scattered files", site)

	w.ahead = 3600e9 // so that no file is too recent to trust its times
	push("push that looks again")
	for _, noop := range []string{"no-op push", "no-op pull"} {
		if noop == "no-op push" {
			p, err := w.pushTo(store, nil)
			must(t, err)
			if !p.Unchanged || p.Read > 0 {
				t.Errorf("the push was no no-op: %+v", p.Result)
			}
		} else {
			p, err := w.pullFrom(store, site, nil)
			must(t, err)
			if !p.NoOp {
				t.Error("the pull was no no-op")
			}
		}
		bill(noop, 0, 5)
	}
}
