package halting_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/halt"
	"nightferry/internal/halting"
)

// TestMerge checks that orders of both sides stay in force, except those that either side has lifted.
func TestMerge(t *testing.T) {
	a := halt.Order{ID: halt.ID{1}, Scope: halt.Site, Value: "a"}
	b := halt.Order{ID: halt.ID{2}, Scope: halt.Site, Value: "b"}
	c := halt.Order{ID: halt.ID{3}, Scope: halt.All}
	set := func(list ...halt.Order) *halt.Orders { return &halt.Orders{Active: list} }
	for _, x := range []struct {
		name         string
		ours, theirs *halt.Orders
		base, lifted []halt.Order
		want         *halt.Orders
	}{
		{"ours is newer", set(a, b), set(a), []halt.Order{a}, nil, set(a, b)},
		{"they have one more", set(a), set(a, c), []halt.Order{a}, nil, set(a, c)},
		{"both have one more", set(a, b), set(a, c), []halt.Order{a}, nil, set(a, b, c)},
		{"lifted here", set(), set(a), []halt.Order{a}, []halt.Order{a}, set()},
		{"lifted there", set(a), set(), []halt.Order{a}, nil, set()},
		{"one lifted here, another there", set(b), set(a), []halt.Order{a, b}, []halt.Order{a}, set()},
		{"lifted here before they had it", set(), set(b), nil, []halt.Order{a}, set(b)},
	} {
		base, lifted := map[halt.ID]bool{}, map[halt.ID]bool{}
		for _, o := range x.base {
			base[o.ID] = true
		}
		for _, o := range x.lifted {
			lifted[o.ID] = true
		}
		got := halting.Merge(x.ours, x.theirs, base, func(id halt.ID) bool { return lifted[id] })
		if d := cmp.Diff(x.want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(halt.Order{}, halt.Orders{})); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
	}
}
