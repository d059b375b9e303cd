package agent

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
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
	o.Dial = func(ctx context.Context, b bus.ClientOptions) (Bus, error) {
		db, err := sql.Open("sqlite", filepath.Join(o.StateDir, spoolFile))
		if err == nil {
			_, err = db.ExecContext(ctx, "DROP TABLE holds")
			err = errors.Join(err, db.Close())
		}
		w.try(err)
		return Dial(ctx, b)
	}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "holds") {
		t.Errorf("it ends with %v", err)
	}
}

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
	due := dueChannel{Desired: want, left: &old}
	a.launchChannel(ctx, g, nil, due)
	w.try(g.Wait())
	if runs, err := sp.Runs(t.Context()); err != nil || len(runs) != 0 {
		t.Fatalf("the old run has not ended: %v %v", runs, err)
	}
	a.launchChannel(ctx, g, map[string]*job{"package": {}}, due) // as of before its end
	if len(a.running) != 0 {
		t.Error("it begins with what it had read before that run ended")
	}
	w.try(g.Wait())
}

// dying ends every rename from the n-th on, as a process does that was killed.
type dying struct{ left int }

func (d *dying) Before(op durable.Op) error {
	if op.Kind == durable.Rename {
		d.left--
	}
	if d.left < 0 {
		return errors.New("killed")
	}
	return nil
}

// TestVacatedAfterAKill: a kill at any point of setting an identity aside leaves
// none that a new one would be mixed with.
func TestVacatedAfterAKill(t *testing.T) {
	files := []string{siteFile, seedFile, jwtFile, keyFile, spoolFile}
	for n := range files {
		dir := t.TempDir()
		for _, name := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []*dying{{left: n}, {left: math.MaxInt}} {
			root, err := durable.Open(dir, durable.Options{Observer: d})
			if err != nil {
				t.Fatal(err)
			}
			err = removeIdentity(root, EnrolOptions{Replace: true, Now: time.Now})
			if first := d.left < 0; first != (err != nil) {
				t.Errorf("killed %v: %v", first, err)
			}
			if err := root.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range files {
			if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("killed at rename %d: %s is still there: %v", n, name, err)
			}
		}
	}
}
