package pains

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/disktest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/runs"
)

// The disk fills up while files are staged, or when the commit is prepared. Every missing file must be named, the
// target must stay as it was, and the next run must resume.
func TestPain13_FullDisk(t *testing.T) {
	stage, next := manifest.StateDir+"/stage/", manifest.StateDir+"/catalogue.next"
	for _, tt := range []struct {
		name, of string
		after    int   // bytes written of that
		fetched  int64 // limit for the second run
	}{
		{"in mid-stage", stage, 5 << 20, 13 << 20},
		{"before the commit", next, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, plan{})
			lay(t, w.src, tree{"keep": noise(1, 1000), "old": noise(2, 1000)})
			w.mustPush(nil)
			site := w.site()
			disktest.Volume(t, site, 40<<20)
			w.arrive(site)
			kept := untouched(t, site)
			names := []string{"a", "b", "c", "d"}
			for i, name := range names {
				put(t, w.src, name, noise(uint64(10+i), 4<<20))
			}
			must(t, os.Remove(filepath.Join(w.src, "old")))
			w.mustPush(func(o *push.Options) { o.AllowDeletes = true })
			own := filepath.Join(site, "of the site's own")
			p, err := w.pull(site, func(o *apply.Options) {
				o.Connections = 1
				var mu sync.Mutex
				written, filled := 0, false
				o.Observer = observer(func(op durable.Op) error {
					mu.Lock()
					defer mu.Unlock()
					if op.Kind != durable.Write || !strings.HasPrefix(op.Name, tt.of) {
						return nil
					}
					if written += len(op.Data); written > tt.after && !filled {
						fill(t, own)
						filled = true
					}
					return nil
				})
			})
			if !durable.IsDiskFull(err) {
				t.Fatalf("error %v, want disk full", err)
			}
			says(t, err, "disk full", "free space", "pull again")
			if p.Verdict == apply.Verified {
				t.Errorf("verdict %q", p.Verdict)
			}
			for _, name := range append(names, "old") {
				if e := p.files[name]; e.Outcome != runs.FileFailed || !durable.IsDiskFull(e.Cause) {
					t.Errorf("%s: outcome %q, cause %v: want failed, disk full", name, e.Outcome, e.Cause)
				}
			}
			must(t, os.Remove(own))
			kept()
			if p := w.arrive(site); p.BytesFetched > tt.fetched {
				t.Errorf("%d bytes were fetched by the second run: it did not go on from where the first one stopped", p.BytesFetched)
			}
		})
	}
}

// fill fills a volume.
func fill(t testing.TB, name string) {
	f, err := os.Create(name)
	must(t, err)
	b := make([]byte, 64<<10)
	for len(b) > 0 {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			b = b[:len(b)/2]
		} else {
			must(t, err)
		}
	}
	must(t, f.Close())
}

// Space is checked before staging, and bytes staged by an interrupted run are counted as present.
func TestPain13_SpaceIsCheckedBefore(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"a": noise(1, 4<<20), "b": noise(2, 4<<20), "c": noise(3, 4<<20), "d": noise(4, 4<<20)})
	w.mustPush(nil)
	site := w.site()
	disktest.Volume(t, site, 16<<20)
	var space *apply.SpaceError
	p, err := w.pull(site, nil)
	if !errors.As(err, &space) || space.Needed < 16<<20 || space.Free > 16<<20 {
		t.Fatalf("error %v, want a SpaceError", err)
	}
	says(t, err, "MiB more are needed", "free")
	if p.BytesFetched > 0 || p.files["a"].Outcome != runs.FileFailed {
		t.Errorf("%d bytes were fetched although they could not be kept; outcomes %v", p.BytesFetched, p.files)
	}
	// 16 MiB and the margin fit into 28. With 8 MiB of them staged, 20 are free; without counting them, 24 would be
	// needed.
	disktest.Resize(t, site, 28<<20)
	enough := errors.New("the window has closed")
	var done atomic.Int64
	_, err = w.pull(site, func(o *apply.Options) {
		o.Connections = 1
		told := o.OnEvent
		o.OnEvent = func(e apply.Event) {
			told(e)
			done.Store(max(done.Load(), e.BytesDone))
		}
		o.Gate = func(context.Context) error {
			if done.Load() >= 8<<20 {
				return enough
			}
			return nil
		}
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	w.arrive(site)
}
