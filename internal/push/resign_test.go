package push

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// TestUnchangedPushSignsTheHeadAgain checks that a daily push keeps the head from expiring even if the source never
// changes.
func TestUnchangedPushSignsTheHeadAgain(t *testing.T) {
	g := newRig(t, nil)
	g.write("a", []byte("a"))
	state, err := durable.Open(g.state, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	start := time.Now().Add(time.Hour) // by then the file is old enough
	push := func(later time.Duration, dry bool) (*Result, *repo.Head) {
		t.Helper()
		now := func() time.Time { return start.Add(later) }
		r, err := repo.Open(t.Context(), dated{g.store, now}, repo.Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		res, err := Run(t.Context(), r, g.source, Options{Channel: "package", Key: g.key, State: state, Now: now, DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		h, err := r.Head(t.Context(), "package")
		if err != nil {
			t.Fatal(err)
		}
		return res, h
	}
	_, first := push(0, false)
	for _, tt := range []struct {
		later  time.Duration
		dry    bool
		signed bool
	}{
		{time.Hour, false, false},
		{24 * time.Hour, true, false},
		{24 * time.Hour, false, true},
		{20 * 24 * time.Hour, false, true}, // it had expired
	} {
		before := first.Expires
		res, h := push(tt.later, tt.dry)
		if !res.Unchanged || h.Number != 1 || h.Release != first.Release {
			t.Errorf("after %v: %+v, %+v", tt.later, res, h)
		}
		if h.Expires.After(before) != tt.signed || tt.signed && h.Expired {
			t.Errorf("after %v: expires %v, before %v", tt.later, h.Expires, before)
		}
		first = h
	}
}

// dated is a store whose clock the test sets.
type dated struct {
	bucket.Store
	now func() time.Time
}

func (s dated) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	body, info, err := s.Store.Get(ctx, key, off, n)
	info.Date = s.now()
	return body, info, err
}

// TestHeadIsGoodByTheStoresTime checks that a publisher's wrong clock neither extends the validity of a head nor dates
// a release in the future.
func TestHeadIsGoodByTheStoresTime(t *testing.T) {
	g := newRig(t, nil)
	g.write("a", []byte("a"))
	state, err := durable.Open(g.state, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	real := time.Now()
	for i, wrong := range []time.Duration{40 * 24 * time.Hour, 80 * 24 * time.Hour} { // the second push finds no change
		now := func() time.Time { return real.Add(wrong) }
		r, err := repo.Open(t.Context(), dated{g.store, func() time.Time { return real }}, repo.Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		res, err := Run(t.Context(), r, g.source, Options{Channel: "package", Key: g.key, State: state, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		h, err := r.Head(t.Context(), "package")
		if err != nil {
			t.Fatal(err)
		}
		rel, err := r.Release(t.Context(), "package", res.Number, res.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if good := h.Expires.Sub(real); good > repo.HeadLife+time.Minute || rel.Created > real.Unix()+60 {
			t.Errorf("push %d: the head is good for %v, the release is dated %v", i, good, time.Unix(rel.Created, 0))
		}
	}
}

// afterHead runs a function after the head was first read.
type afterHead struct {
	bucket.Store
	then func()
}

func (s *afterHead) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	body, info, err := s.Store.Get(ctx, key, off, n)
	if then := s.then; key == repo.HeadKey("package") && then != nil {
		s.then = nil
		then()
	}
	return body, info, err
}

// TestUnchangedPushSignsNoOtherHead checks that a push signs only the head that it has read, not one stored meanwhile.
func TestUnchangedPushSignsNoOtherHead(t *testing.T) {
	g := newRig(t, nil)
	g.write("a", []byte("a"))
	if _, err := g.push(nil); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(24 * time.Hour)
	var head []byte
	s := &afterHead{Store: dated{g.store, func() time.Time { return later }}, then: func() {
		another := *g
		another.source, another.state, another.memory = t.TempDir(), t.TempDir(), nil
		another.write("b", []byte("b"))
		if _, err := another.push(func(o *Options) { o.AllowDeletes = true }); err != nil {
			t.Fatal(err)
		}
		head = testbed.ReadObject(t, g.store, repo.HeadKey("package"))
	}}
	if res, err := g.pushTo(t.Context(), s, func(o *Options) { o.Now = func() time.Time { return later } }); !errors.Is(err, repo.ErrConflict) {
		t.Errorf("%+v %v", res, err)
	}
	if !bytes.Equal(head, testbed.ReadObject(t, g.store, repo.HeadKey("package"))) {
		t.Error("the other push's head was signed again")
	}
}
