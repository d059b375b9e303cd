package collect

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// TestMergedSegmentsStay checks that gc keeps the segments that the root listed
// when gc began. A reader that has just read that root still needs them.
func TestMergedSegmentsStay(t *testing.T) {
	l := newLab(t, nil, nil)
	for n := range uint64(2) {
		l.write("a", 3<<20, n)
		l.mustPush()
		l.clock.advance(l.grace)
	}
	l.mustGC(Options{Keep: 1})
	l.clock.advance(2 * l.grace)
	r, err := l.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	old, err := r.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep := l.mustGC(Options{Keep: 1}); rep.Deleted == 0 {
		t.Fatalf("no pack was deleted, so that nothing was merged: %+v", rep)
	}
	after := map[string]bool{}
	for _, k := range testbed.Keys(t, l.base, "index/") {
		after[k] = true
	}
	for _, s := range old.Root().Segments {
		if !after[repo.SegmentKey(s.Digest)] {
			t.Errorf("segment %s is gone", s.Digest.Short())
		}
	}
	l.clock.advance(2 * l.grace)
	if rep := l.mustGC(Options{Keep: 1}); rep.Leftovers == 0 {
		t.Errorf("the next run leaves it, too: %+v", rep)
	}
}

// TestForgetBesideAPush runs a push that relies on stored chunks, which fsck
// forgets before the head moves. The push publishes nothing, and the next push
// heals the repository.
func TestForgetBesideAPush(t *testing.T) {
	l := newLab(t, nil, nil)
	l.write("a", 1<<20, 1)
	l.mustPush()
	packs := testbed.Keys(t, l.base, "packs/")
	l.write("b", 1<<20, 2)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/releases/2", before: func() {
		for _, k := range packs {
			testbed.DeleteObject(t, l.base, k)
		}
		if rep, _ := l.fsck(FsckOptions{ForgetMissing: true}); rep.Forgotten == 0 {
			t.Error("fsck forgot nothing")
		}
	}}
	if res, err := l.push(s, "core", labChannel); !errors.Is(err, repo.ErrForgotten) {
		t.Fatalf("%+v, %v", res, err)
	}
	l.mustPush()
	if _, err := apply.Run(t.Context(), l.store, filepath.Join(t.TempDir(), "t"), apply.Options{Channel: labChannel, Now: l.clock.Now}); err != nil {
		t.Errorf("the release after it: %v", err)
	}
}

// TestDirectoryStoreHasOneClock runs gc on a machine whose clock is ahead by
// more than the grace period, beside a push from another machine. gc deletes
// none of the push's objects.
func TestDirectoryStoreHasOneClock(t *testing.T) {
	l := newLab(t, nil, nil)
	url := testbed.FileURL(t.TempDir())
	ahead := func() time.Time { return time.Now().Add(8 * 24 * time.Hour) }
	store, err := bucket.Open(t.Context(), url, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Init(t.Context(), store, repo.InitOptions{Root: l.root, Release: l.key, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	publish := func(s bucket.Store) {
		t.Helper()
		r, err := repo.Open(t.Context(), s, repo.Options{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := push.Run(t.Context(), r, l.src, push.Options{Channel: labChannel, Key: l.key, State: l.dir("core"), Now: time.Now}); err != nil {
			t.Fatal(err)
		}
	}
	l.write("a", 1<<20, 1)
	publish(store)
	l.write("b", 1<<20, 2)
	publish(&gate{Store: store, key: "index/", before: func() {
		other, err := bucket.Open(t.Context(), url, bucket.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := repo.Open(t.Context(), other, repo.Options{Now: ahead})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := GC(t.Context(), r, r.Segments(l.dir("other")), Options{}); err != nil || rep.Leftovers+rep.Deleted > 0 {
			t.Errorf("gc beside the push: %+v, %v", rep, err)
		}
	}})
	if _, err := apply.Run(t.Context(), store, filepath.Join(t.TempDir(), "t"), apply.Options{Channel: labChannel, Now: time.Now}); err != nil {
		t.Errorf("the release that was published cannot be pulled: %v", err)
	}
}

// TestHaltEndsGC checks that a halt order that arrives during gc ends it before
// the next phase, and also within a long phase.
func TestHaltEndsGC(t *testing.T) {
	for _, phase := range []string{"mark", "condemn", "delete packs"} {
		t.Run(phase, func(t *testing.T) {
			l := newLab(t, nil, nil)
			for n := range uint64(3) {
				l.write("a", 20<<20, n)
				l.mustPush()
				l.clock.advance(l.grace)
			}
			l.mustGC(Options{Keep: 2})
			l.clock.advance(2 * l.grace)
			before := len(testbed.Keys(t, l.base, "packs/"))
			r, err := l.open(nil)
			if err != nil {
				t.Fatal(err)
			}
			slow := &slowDelete{Store: l.store}
			r2, err := l.open(slow)
			if err != nil {
				t.Fatal(err)
			}
			halted := false
			_, err = GC(t.Context(), r2, r2.Segments(l.dir("gc")), Options{Keep: 1, Connections: 1, HaltEvery: time.Millisecond, OnEvent: func(e Event) {
				if halted || e.Phase != phase {
					return
				}
				halted = true
				_, err := r.Halts().Put(t.Context(), l.key, func(o *halt.Orders) error {
					o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test"})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if phase == "delete packs" {
					slow.wait = true // deletions now wait for the halt order
				}
			}})
			if stop := (*halt.Error)(nil); !errors.As(err, &stop) {
				t.Fatalf("%v", err)
			}
			if after := len(testbed.Keys(t, l.base, "packs/")); phase != "delete packs" && after != before || after < before-1 {
				t.Errorf("%d packs of %d are left", after, before)
			}
		})
	}
}

// slowDelete blocks each deletion, once wait is set, until its context is
// cancelled.
type slowDelete struct {
	bucket.Store
	wait bool
}

func (s *slowDelete) Delete(ctx context.Context, key string) error {
	if s.wait {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return s.Store.Delete(ctx, key)
}

// TestPackGoesWhileItIsRead: gc deletes a pack while its body is being read.
// The reader looks its chunks up again and reads them from their new place.
func TestPackGoesWhileItIsRead(t *testing.T) {
	l := newLab(t, nil, nil)
	l.write("a", 1<<20, 1)
	l.write("b", 8<<20, 2)
	l.mustPush()
	l.remove("b")
	l.write("c", 1000, 3)
	l.mustPush()
	l.clock.advance(l.grace)
	s := &breaking{Store: l.store, then: func() {
		l.mustGC(Options{Keep: 1})
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(Options{Keep: 1}); rep.Deleted == 0 {
			t.Errorf("no pack was deleted: %+v", rep)
		}
	}}
	if _, err := apply.Run(t.Context(), s, filepath.Join(t.TempDir(), "t"), apply.Options{Channel: labChannel, Now: l.clock.Now}); err != nil {
		t.Fatal(err)
	}
	if s.then != nil {
		t.Error("no pack was read in parts")
	}
}

// breaking cuts the first body of a pack short. The request for the rest then
// fails because the object is gone.
type breaking struct {
	bucket.Store
	then func()
}

func (b *breaking) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	body, info, err := b.Store.Get(ctx, key, off, n)
	if err != nil || b.then == nil || !strings.HasPrefix(key, "packs/") || n < 1<<19 {
		return body, info, err
	}
	then := b.then
	b.then = nil
	return &broken{ReadCloser: body, left: 1000, then: func() error {
		then()
		_, _, err := b.Store.Get(ctx, key, off+1000, n-1000)
		return err
	}}, info, nil
}

type broken struct {
	io.ReadCloser
	left int
	then func() error
}

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.then()
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
