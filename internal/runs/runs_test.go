package runs

import (
	"encoding/json"
	"slices"
	"testing"
)

// TestStates: each state is valid once, and no other text is a state.
func TestStates(t *testing.T) {
	list := All()
	for _, s := range list {
		if !s.Valid() {
			t.Errorf("%q is not valid", s)
		}
	}
	slices.Sort(list)
	if n := len(slices.Compact(list)); n != len(All()) || n != 15 {
		t.Errorf("%d states of %d are distinct, want 15", n, len(All()))
	}
	for _, s := range []State{"", "running", "Verified", "verified "} {
		if s.Valid() {
			t.Errorf("%q is valid", s)
		}
	}
	for _, s := range All() {
		want := slices.Contains([]State{Verified, Incomplete, Different, Planned}, s)
		if s.Accounted() != want {
			t.Errorf("%s: every file is accounted for: %t", s, !want)
		}
	}
}

// TestTotalsAreFlat: programs that read JSON find counts beside bytes.
func TestTotalsAreFlat(t *testing.T) {
	b, err := json.Marshal(Totals{Files: 1, Bytes: 2, Counts: Counts{Added: 3, Differs: 4}, Held: 5, Fetched: 6, Wire: 7})
	want := `{"files":1,"bytes":2,"added":3,"changed":0,"moved":0,"repaired":0,"deleted":0,"unchanged":0,"locked":0,"extra":0,"failed":0,"differs":4,"held":5,"fetched":6,"wire":7}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
}
