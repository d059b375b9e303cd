package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// restate changes only the change time of each file of dir.
func restate(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		try(t, err)
		try(t, os.Chmod(path, info.Mode().Perm()^0o100))
		try(t, os.Chmod(path, info.Mode().Perm()))
	}
}

// A file of which only the change time is new is read under the limit, and the reason is reported once. With IgnoreInode
// it is not read.
func TestRestatedFilesAreReadUnderTheLimit(t *testing.T) {
	p, src, dst := dirs(t, tree{"a": blob(1, 300_000), "b": blob(2, 200_000), "c": "edited"})
	p.publish(src)
	p.must(dst, nil)
	var read atomic.Int64
	limit := func(o *Options) {
		o.Limit = func(_ context.Context, n int) error {
			read.Add(int64(n))
			return nil
		}
	}
	restate(t, dst, "a", "b")
	r := p.must(dst, limit)
	if read.Load() != 500_000 || len(r.retry) != 1 || !strings.Contains(r.retry[0].Error(), "2 files of 500000 bytes") {
		t.Errorf("%d bytes under the limit, told %v", read.Load(), r.retry)
	}
	if len(r.files) > 0 || !p.must(dst, limit).NoOp {
		t.Errorf("told as changed: %v", r.outcomes())
	}
	restate(t, dst, "a", "b")
	if r := p.must(dst, func(o *Options) { limit(o); o.IgnoreInode = true }); !r.NoOp || read.Load() != 500_000 {
		t.Errorf("by size and time: no-op %t, %d bytes read", r.NoOp, read.Load())
	}
	closed := errors.New("the window is over")
	if _, err := p.pull(dst, func(o *Options) { o.Limit = func(context.Context, int) error { return closed } }); !errors.Is(err, closed) {
		t.Errorf("the limit's error: %v", err)
	}
	// Edited content is read at once.
	read.Store(0)
	try(t, os.WriteFile(filepath.Join(dst, "c"), []byte("by hand"), 0o644))
	p.must(dst, func(o *Options) { limit(o); o.IgnoreInode = true })
	if read.Load() != 0 {
		t.Errorf("%d bytes of an edited file were read under the limit", read.Load())
	}
}

// A file becomes sparse only if its holes are large enough. Other holes count toward the needed space.
func TestHolesWorthHaving(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	p, src, dst := dirs(t, tree{"thin": blob(1, 100_000) + zeros(4<<20), "dense": blob(2, 2_000_000), "specks": blob(3, 400_000) + zeros(600_000) + blob(4, 400_000)})
	p.publish(src)
	s, done, err := openSite(dst, options(nil))
	try(t, err)
	defer func() { try(t, done()) }()
	if _, err := s.remote.openRepository(t.Context(), p.store, nil); err != nil {
		t.Fatal(err)
	}
	head, err := s.remote.repo.Head(t.Context(), channel)
	try(t, err)
	rel, err := s.remote.readRelease(t.Context(), head, head.Number, head.Release)
	try(t, err)
	try(t, s.remote.repo.Manifests(s.remote.pages).Load(t.Context(), s.remote.loadIndex, rel.PageIDs(), s.remote.fetchOptions()))
	changes, _, err := s.planChanges(t.Context(), rel)
	try(t, err)
	g, lacking, lists := s.newStager(changes)
	try(t, s.remote.repo.Manifests(s.remote.pages).Load(t.Context(), s.remote.loadIndex, lists, s.remote.fetchOptions()))
	try(t, g.listWants(t.Context(), lacking, nil))
	for i := range changes {
		_, thin := g.thin[int32(i)]
		if thin != (changes[i].path == "thin") {
			t.Errorf("%s: sparse %t", changes[i].path, thin)
		}
	}
	if !s.target.keeps.Sparse {
		t.Skip("this file system keeps no holes")
	}
	if g.filled < 0 || g.filled > 600_000 {
		t.Errorf("%d bytes of holes are counted as taking space", g.filled)
	}
}
