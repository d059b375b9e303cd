package core_test

import (
	"maps"
	"slices"
	"testing"
)

// TestHeld: gc is told of what sites hold, of what they should hold, and of what
// they are about to hold.
func TestHeld(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	_, events := osaka.converge(osaka.stateOf("package", 1))
	osaka.deliver(events)
	for _, text := range []string{"two", "three", "four"} {
		w.write("a.txt", text)
		w.publish("package")
		if text == "three" { // begun, not ended
			_, events := osaka.converge(osaka.stateOf("package", 3))
			osaka.deliver(events[:1])
		}
	}
	held, err := w.core.Held(t.Context())
	if got := slices.Sorted(maps.Keys(held["package"])); err != nil || !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Errorf("%v, %v", held, err)
	}
}
