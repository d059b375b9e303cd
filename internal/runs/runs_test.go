package runs

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
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
	if n := len(slices.Compact(list)); n != len(All()) || n != 16 {
		t.Errorf("%d states of %d are distinct, want 16", n, len(All()))
	}
	for _, s := range []State{"", "running", "Verified", "verified "} {
		if s.Valid() {
			t.Errorf("%q is valid", s)
		}
	}
	for _, s := range All() {
		want := slices.Contains([]State{Verified, Incomplete, Unowned, Different, Planned}, s)
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

// TestOutcomes: each outcome has its own word and byte, and moves one counter;
// each counter of a run is moved by an outcome.
func TestOutcomes(t *testing.T) {
	moved, last := Counts{}, byte(0)
	for i, o := range Outcomes() {
		if slices.Index(Outcomes(), o) != i {
			t.Errorf("%s is listed twice", o)
		}
		var c Counts
		c.Add(o)
		moved.Add(o)
		want := 1
		if o == FileUnreached || o == FileSkipped {
			want = 0
		}
		if n := sum(c); n != want {
			t.Errorf("%s moves %d counters, want %d: %+v", o, n, want, c)
		}
		b := o.Byte()
		if b == 0 {
			continue
		}
		if again, ok := OutcomeOf(b); !ok || again != o || b <= last || b > 15 {
			t.Errorf("%s has byte %d, which is %q after %d", o, b, again, last)
		}
		last = b
	}
	if last != FileDiffers.Byte() || last != 9 {
		t.Errorf("the last byte is %d", last)
	}
	v := reflect.ValueOf(moved)
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && v.Field(i).Int() == 0 {
			t.Errorf("no outcome moves %s", f.Name)
		}
	}
	var none Counts
	if none.Add("lost"); none != (Counts{}) || Outcome("lost").Byte() != 0 {
		t.Error("an unknown outcome counts")
	}
	for _, b := range []byte{0, last + 1, 15, 255} {
		if o, ok := OutcomeOf(b); ok {
			t.Errorf("byte %d is %s", b, o)
		}
	}
}

// sum adds up the counters.
func sum(c Counts) (n int) {
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			n += int(v.Field(i).Int())
		}
	}
	return n
}

// TestOutcomesAreDocumented: the page about log files lists every outcome, and
// the page about messages every byte.
func TestOutcomesAreDocumented(t *testing.T) {
	read := func(name string) string {
		page, err := os.ReadFile("../../docs/format/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(page)
	}
	log, wire := read("record.md"), read("wire.md")
	for _, o := range Outcomes() {
		if !strings.Contains(log, fmt.Sprintf("\n| `%s` | ", o)) {
			t.Errorf("docs/format/record.md has no row for the outcome %s", o)
		}
		if text := fmt.Sprintf(" %d %s", o.Byte(), o); o.Byte() > 0 && !strings.Contains(wire, text) {
			t.Errorf("docs/format/wire.md does not say%s", text)
		}
	}
}
