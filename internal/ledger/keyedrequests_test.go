package ledger

import (
	"testing"
	"time"
)

// TestKeyedRequestsAreBounded checks that the oldest requests are removed beyond each bound, and no others.
func TestKeyedRequestsAreBounded(t *testing.T) {
	l, c := newLedger(t)
	ctx, keyed := t.Context(), &l.KeyedRequests
	b := KeyedBounds{Age: time.Hour, Each: 3, All: 5, Bytes: 100}
	begin := func(id, who byte) bool {
		t.Helper()
		old, err := keyed.Begin(ctx, KeyedRequest{ID: [32]byte{id}, Who: [32]byte{who}, At: c.now()}, b)
		must(t, err)
		return old != nil
	}
	for id := range byte(5) {
		begin(id, 1) // 0 and 1 leave
	}
	for id := range byte(3) {
		begin(10+id, 2) // 2 leaves
	}
	if !begin(3, 1) || !begin(4, 1) || !begin(10, 2) || !begin(12, 2) {
		t.Error("a request within the bounds is gone")
	}
	if begin(2, 1) { // it is new, so that 3 leaves
		t.Error("the sixth request is there")
	}
	must(t, keyed.Finish(ctx, [32]byte{11}, make([]byte, 60)))
	must(t, keyed.Finish(ctx, [32]byte{12}, make([]byte, 60)))
	begin(20, 3)
	if begin(11, 2) {
		t.Error("more answers than the bound are kept")
	}
	must(t, keyed.Drop(ctx, [32]byte{12}))
	if !begin(12, 2) {
		t.Error("a request that has ended was dropped")
	}
	c.add(2 * time.Hour)
	if begin(12, 2) {
		t.Error("a request is older than the bound")
	}
	c.add(-3 * time.Hour)
	if begin(12, 2) {
		t.Error("a request is of a clock that was wrong")
	}
}
