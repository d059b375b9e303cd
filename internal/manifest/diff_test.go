package manifest

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func stream(es []Entry) Next {
	return func() (*Entry, error) {
		if len(es) == 0 {
			return nil, nil
		}
		e := &es[0]
		es = es[1:]
		return e, nil
	}
}

func diff(t interface{ Fatal(...any) }, a, b []Entry) (out []string) {
	err := Diff(stream(a), stream(b), func(c Change) error {
		switch {
		case c.Old == nil:
			out = append(out, "+ "+c.New.Path)
		case c.New == nil:
			out = append(out, "- "+c.Old.Path)
		default:
			out = append(out, "! "+c.Old.Path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiff(t *testing.T) {
	a := []Entry{*dir("d"), *file("d/gone"), *file("d/same"), *file("d/swap"), *file("mode"), *file("time"), *file("z")}
	b := []Entry{*file("c"), *dir("d"), *file("d/same"), *dir("d/swap"), *file("d/swap/x"), *file("mode"), *file("time"), {Path: "z", Size: 3, Digest: id("other")}}
	b[5].Mode, b[6].MTime = 1, 1
	want := []string{"+ c", "- d/gone", "! d/swap", "+ d/swap/x", "! mode", "! time", "! z"}
	if d := cmp.Diff(want, diff(t, a, b)); d != "" {
		t.Error(d)
	}
	if got := diff(t, a, a); got != nil {
		t.Errorf("a tree differs from itself: %v", got)
	}
}

// TestDiffAppliedGivesTheOther checks that applying a Diff to one tree gives
// the other.
func TestDiffAppliedGivesTheOther(t *testing.T) {
	tree := rapid.Custom(func(t *rapid.T) (es []Entry) {
		for _, p := range rapid.SliceOfDistinct(rapid.StringMatching(`[ab.]{1,4}`), rapid.ID[string]).Draw(t, "paths") {
			e := *file(p)
			e.MTime = rapid.Int64Range(0, 1).Draw(t, "mtime")
			es = append(es, e)
		}
		slices.SortFunc(es, func(a, b Entry) int { return ComparePaths(a.Path, b.Path) })
		return es
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := tree.Draw(t, "a"), tree.Draw(t, "b")
		m := map[string]Entry{}
		for _, e := range a {
			m[e.Path] = e
		}
		last := ""
		if err := Diff(stream(a), stream(b), func(c Change) error {
			p := ""
			if c.Old != nil {
				p = c.Old.Path
				delete(m, p)
			}
			if c.New != nil {
				p = c.New.Path
				m[p] = *c.New
			}
			if last != "" && ComparePaths(last, p) >= 0 {
				t.Fatalf("%q comes after %q", p, last)
			}
			last = p
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := map[string]Entry{}
		for _, e := range b {
			want[e.Path] = e
		}
		if d := cmp.Diff(want, m, equal...); d != "" {
			t.Fatal(d)
		}
	})
}

func TestDiffStopsAtErrors(t *testing.T) {
	boom := errors.New("boom")
	fails := func(after int) Next {
		return func() (*Entry, error) {
			if after--; after < 0 {
				return nil, boom
			}
			return file(string(rune('a' + 3 - after))), nil
		}
	}
	ignore := func(Change) error { return nil }
	for name, err := range map[string]error{
		"at once, from":   Diff(fails(0), stream(nil), ignore),
		"at once, to":     Diff(stream(nil), fails(0), ignore),
		"later, from":     Diff(fails(2), stream(nil), ignore),
		"later, to":       Diff(stream(nil), fails(2), ignore),
		"from the caller": Diff(fails(2), stream(nil), func(Change) error { return boom }),
	} {
		if !errors.Is(err, boom) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
