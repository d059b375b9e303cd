package scan

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLongPath(t *testing.T) {
	for abs, want := range map[string]string{
		`C:\x`: `\\?\C:\x`, `\\server\share\x`: `\\?\UNC\server\share\x`, `\\?\C:\x`: `\\?\C:\x`, `\\?\UNC\s\x`: `\\?\UNC\s\x`, `\\.\C:\x`: `\\.\C:\x`,
	} {
		if got := longPath(abs); got != want {
			t.Errorf("%s: %s", abs, got)
		}
	}
	for root, want := range map[string]string{`\\?\C:\`: `\\?\C:\a\b`, `\\?\C:\x`: `\\?\C:\x\a\b`} {
		if got := (&lister{root: root}).fullPath("a/b"); got != want {
			t.Errorf("%s: %s", root, got)
		}
	}
}

// The listing for shares without the fast call returns the same, except for
// the fields that it cannot read.
func TestPortableListingAgrees(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"sub/a": "1", "sub/b/x": "", "sub/ü": "333"})
	l, err := openLister(dir)
	if err != nil {
		t.Fatal(err)
	}
	fast, _, err := l.listFolder("sub", nil, &scratch{})
	if err != nil {
		t.Fatal(err)
	}
	slow, err := listPortable(l.fullPath("sub"), "sub", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range fast {
		if fast[i].Stat.ID == 0 || fast[i].Stat.CTime == 0 {
			t.Errorf("%s: the fast call told no id or change time", fast[i].Path)
		}
		fast[i].Stat.ID, fast[i].Stat.CTime = 0, 0
	}
	for _, list := range [][]Item{fast, slow} {
		slices.SortFunc(list, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	}
	if d := cmp.Diff(fast, slow); d != "" {
		t.Error(d)
	}
	if len(fast) != 3 {
		t.Errorf("%d items", len(fast))
	}
}
