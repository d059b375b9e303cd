package core_test

import (
	"slices"
	"testing"

	"nightferry/internal/ledger"
)

// TestLostRunEnds: a run whose server was replaced, or has lost its memory, does
// not count as under way, and holds no release.
func TestLostRunEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	w.publish("package")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events[:1]) // it has begun; then the server is replaced
	again := w.join("osaka")
	again.generation[0]++
	_, events = again.converge(again.stateOf("package", 1))
	again.deliver(events)
	_, lost := tokyo.converge(tokyo.stateOf("package", 1))
	tokyo.deliver(lost[:1])
	tokyo.generation, tokyo.next = make([]byte, 16), 1
	_, events = tokyo.converge(tokyo.stateOf("package", 1))
	tokyo.deliver(events)
	tokyo.settled()
	again.settled()
	w.upkeep()
	open, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Open: true})
	if err != nil || len(slices.DeleteFunc(open, func(r ledger.Run) bool { return r.Site == "" })) > 0 {
		t.Errorf("under way: %+v, %v", open, err)
	}
}
