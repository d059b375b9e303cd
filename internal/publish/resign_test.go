package publish

import (
	"testing"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/repo"
)

// A source that never changes must not let its channel's head expire: a daily push signs it again.
func TestUnchangedPushSignsTheHeadAgain(t *testing.T) {
	g := newRig(t, nil)
	g.write("a", []byte("a"))
	state, err := durable.Open(g.state, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	start := time.Now().Add(time.Hour) // the file is old enough then
	push := func(later time.Duration, dry bool) (*Result, *repo.Head) {
		t.Helper()
		now := func() time.Time { return start.Add(later) }
		r, err := repo.Open(t.Context(), g.store, repo.Options{Now: now})
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
