package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// TestOwnErrorEndsIt: an agent that cannot go on says so, or no service manager
// would start it again.
func TestOwnErrorEndsIt(t *testing.T) {
	w := newWorld(t)
	o := options(w.enrolled(), t.Logf)
	broken := errors.New("broken for the test")
	o.Dial = func(ctx context.Context, b bus.ClientOptions) (Bus, error) {
		c, err := Dial(ctx, b)
		return brokenBus{c, broken}, err
	}
	if err := Run(t.Context(), o); !errors.Is(err, broken) {
		t.Errorf("it ends with %v", err)
	}
}

type brokenBus struct {
	Bus
	err error
}

func (b brokenBus) Publish(string, []byte) error { return b.err }

// TestNothingStartsFromAnOldReading: what the spool said of a channel whose run
// ended meanwhile begins nothing, nor brings that run to an end once more.
func TestNothingStartsFromAnOldReading(t *testing.T) {
	w := newWorld(t)
	dir := w.enrolled(t.TempDir())
	id, err := Load(dir)
	w.try(err)
	root, err := durable.Open(dir, durable.Options{})
	w.try(err)
	defer func() { w.try(root.Close()) }()
	sp, err := spool.Open(t.Context(), filepath.Join(dir, spoolFile), spool.Options{Now: time.Now})
	w.try(err)
	defer func() { w.try(sp.Close()) }()
	a := newAgent(options(dir, t.Logf), id, root, sp)
	old := spool.Run{ID: random16(), Channel: "package", Number: 1, DryRun: true, Began: 1}
	w.try(sp.Begin(t.Context(), old, wire.Event{Run: old.ID, Channel: old.Channel, Kind: wire.StartedEvent}))

	g, ctx := errgroup.WithContext(t.Context())
	want := wire.Desired{Channel: "package", Number: 2}
	a.launch(ctx, g, nil, want, &old, false)
	w.try(g.Wait())
	if runs, err := sp.Runs(t.Context()); err != nil || len(runs) != 0 {
		t.Fatalf("the old run has not ended: %v %v", runs, err)
	}
	a.launch(ctx, g, map[string]*job{"package": {}}, want, &old, false) // as of before its end
	if len(a.running) != 0 {
		t.Error("it begins with what it had read before that run ended")
	}
	w.try(g.Wait())
}
