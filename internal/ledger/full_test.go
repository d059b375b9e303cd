package ledger

import (
	"bytes"
	"fmt"
	"testing"
)

// fill commits batches until the disk is full and returns how many events were
// acknowledged.
func fill(t *testing.T, l *Ledger, run RunID) int {
	t.Helper()
	for last := 0; ; last++ {
		b := batch("apac", "osaka", uint64(last)+1, 1, run)
		b.Events[0].Body = append(b.Events[0].Body, bytes.Repeat([]byte{0}, 64<<10)...)
		if _, err := l.Commit(t.Context(), b); err != nil {
			wantErr(t, err, ErrFull)
			return last
		}
		if last > 10000 {
			t.Fatal("the disk never became full")
		}
	}
}

// afterFull fails unless the ledger contains all acknowledged events and the same process can write again.
func afterFull(t *testing.T, l *Ledger, run RunID, acked int) {
	t.Helper()
	for n := range 3 {
		c, err := l.Commit(t.Context(), batch("apac", "osaka", uint64(acked+n)+1, 1, run))
		must(t, err)
		same(t, "committed", c, Committed{Last: uint64(acked+n) + 1, Fresh: 1})
	}
	got := bodies(t, l, run)
	if len(got) != acked+3 {
		t.Fatalf("%d events, want %d", len(got), acked+3)
	}
	for i, b := range got {
		if want := fmt.Sprint("event ", i+1); b[:len(want)] != want {
			t.Fatalf("event %d is %.20q", i+1, b)
		}
	}
	must(t, l.Check(t.Context()))
}

func TestFullLedger(t *testing.T) {
	l, _ := newLedger(t)
	setMax := func(pages int) {
		t.Helper()
		_, err := l.db.write.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages))
		must(t, err)
	}
	setMax(400)
	acked := fill(t, l, runID(1))
	if acked == 0 {
		t.Fatal("nothing was committed before")
	}
	// Small changes may still fit; reading always works.
	if _, err := l.Runs(t.Context(), RunFilter{}); err != nil {
		t.Fatal(err)
	}
	setMax(1 << 30)
	afterFull(t, l, runID(1), acked)
}
