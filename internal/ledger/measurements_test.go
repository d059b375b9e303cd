package ledger

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/trust"
)

// TestMeasurements checks that a release has one measurement, the latest.
func TestMeasurements(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	_, err := l.Measurements.Of(ctx, "package", 1)
	wantErr(t, err, ErrNotFound)
	one := Measurement{Channel: "package", Number: 1, Release: trust.ReleaseDigest(d("r1")), At: c.now(), Took: Seconds(90 * time.Second), Run: runID(1), Tree: d("t1"), Files: 3, Bytes: 30,
		SourceFiles: 4, SourceBytes: 44, Same: 2, Moved: 5, Damaged: 6, Unreadable: 7}
	must(t, l.Measurements.Set(ctx, one))
	two := one
	two.Number, two.Release = 2, trust.ReleaseDigest(d("r2"))
	must(t, l.Measurements.Set(ctx, two))
	one.Damaged, one.Run = 0, runID(3)
	must(t, l.Measurements.Set(ctx, one))
	got, err := l.Measurements.Of(ctx, "package", 1)
	must(t, err)
	same(t, "release 1", got, one)
	list, err := l.Measurements.List(ctx, "", 0)
	must(t, err)
	same(t, "all", list, []Measurement{two, one})
	must(t, l.Check(ctx))
}

// TestHoldingOfSchema1 checks that a holding from schema 1 reports its counts as unknown.
func TestHoldingOfSchema1(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "ledger.db")
	steps, err := readMigrations()
	must(t, err)
	c := newClock()
	l, err := openLedger(ctx, path, Options{Now: c.now}, steps[:1])
	must(t, err)
	must(t, l.db.makeChange(ctx, "an older program", func(x *tx) error {
		r, tree, run := d("r"), d("t"), runID(1)
		return x.execSQL("INSERT INTO holdings (domain, site, channel, number, release, tree, since, attested, verified, run) VALUES ('apac', 'osaka', 'package', 1, ?, ?, 1, 1, 1, ?)", r[:], tree[:], run[:])
	}))
	must(t, l.Close())
	l, err = Open(ctx, path, Options{Now: c.now})
	must(t, err)
	defer func() { must(t, l.Close()) }()
	h, err := l.Holdings(ctx, Filter{})
	must(t, err)
	if len(h) != 1 || h[0].Files != -1 || h[0].Bytes != -1 {
		t.Error(cmp.Diff(nil, h))
	}
}

// TestSeconds checks that durations are encoded in JSON as seconds, in both directions.
func TestSeconds(t *testing.T) {
	for text, d := range map[string]time.Duration{"1.5": 1500 * time.Millisecond, "0": 0, "-90": -90 * time.Second, "0.000000001": 1, "86400": 24 * time.Hour} {
		b, err := json.Marshal(Seconds(d))
		var back Seconds
		if uerr := json.Unmarshal(b, &back); err != nil || uerr != nil || string(b) != text || back != Seconds(d) {
			t.Errorf("%v: %s, %v, back %v", d, b, err, time.Duration(back))
		}
	}
	var s Seconds
	if err := json.Unmarshal([]byte("1e300"), &s); err == nil {
		t.Error("1e300 seconds were read")
	}
}
