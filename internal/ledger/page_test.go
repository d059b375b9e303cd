package ledger

import (
	"slices"
	"testing"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/trust"
)

// TestPages checks that pages of runs and of the audit join to the whole list, also where rows share a time, and that a
// row that came in the meantime moves nothing.
func TestPages(t *testing.T) {
	l, c := newLedger(t)
	ctx := t.Context()
	begin := func(n int) {
		t.Helper()
		events := []Event{{Run: runID(n), Channel: "package", Kind: 1, At: c.now(), Start: &Start{Number: 1, Release: trust.ReleaseDigest(digest.Digest{1})}}}
		if _, err := l.Commit(ctx, Batch{Domain: "apac", Site: "osaka", Generation: [16]byte{1}, First: uint64(n), Events: events}); err != nil {
			t.Fatal(err)
		}
		must(t, l.Audit(ctx, Deed{Who: "kay", What: "halt"}))
	}
	for n := 1; n <= 7; n++ {
		begin(n)
		if n%3 == 0 {
			c.add(time.Second)
		}
	}
	all, err := l.Runs(ctx, RunFilter{})
	must(t, err)
	deeds, err := l.Deeds(ctx, DeedFilter{})
	must(t, err)
	if len(all) != 7 || len(deeds) != 7 {
		t.Fatalf("%d runs, %d deeds", len(all), len(deeds))
	}
	var ids []RunID
	var numbers []int64
	f, d := RunFilter{Limit: 2}, DeedFilter{Limit: 2}
	for n := range 4 {
		page, err := l.Runs(ctx, f)
		must(t, err)
		entries, err := l.Deeds(ctx, d)
		must(t, err)
		for i := range page {
			ids, numbers = append(ids, page[i].ID), append(numbers, entries[i].ID)
		}
		f.After, d.After = ids[len(ids)-1], numbers[len(numbers)-1]
		begin(8 + n)
	}
	for i, r := range all {
		if len(ids) != len(all) || ids[i] != r.ID || numbers[i] != deeds[i].ID {
			t.Fatalf("pages %v and %v differ from the lists %v and %v", ids, numbers, all, deeds)
		}
	}
	if gone, err := l.Runs(ctx, RunFilter{After: runID(99)}); err != nil || len(gone) != 0 {
		t.Errorf("after a run that is gone: %v, %v", gone, err)
	}
	if !slices.IsSortedFunc(numbers, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("audit %v: want the newest first", numbers)
	}
}
