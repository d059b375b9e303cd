package scan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, include, exclude string) *Patterns {
	t.Helper()
	p, err := ParsePatterns(strings.Fields(include), strings.Fields(exclude))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPatternsMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		dir, want     bool
	}{
		{"*.tmp", "a.tmp", false, true},
		{"*.tmp", "x/y/a.tmp", false, true},
		{"*.tmp", "a.tmp/x", false, false}, // the walk never reaches it
		{"/*.tmp", "a.tmp", false, true},
		{"/*.tmp", "x/a.tmp", false, false},
		{"x/*.tmp", "x/a.tmp", false, true},
		{"x/*.tmp", "y/x/a.tmp", false, false},
		{"**/x/*.tmp", "y/x/a.tmp", false, true},
		{"**/x/*.tmp", "x/a.tmp", false, true},
		{"x/**", "x/a/b", false, true},
		{"x/**", "x", true, false},
		{"x/**/z", "x/z", false, true},
		{"x/**/z", "x/1/2/z", false, true},
		{"cache/", "cache", true, true},
		{"cache/", "cache", false, false},
		{"cache/", "a/cache", true, true},
		{"/cache/", "a/cache", true, false},
		{"[a-c]?.log", "b1.log", false, true},
		{"*.{log,tmp}", "b1.tmp", false, true},
		{"[*]", "*", false, true},
		{"[*]", "x", false, false},
		{"*.TMP", "a.tmp", false, false},
		{".git", "sub/.git", true, true},
	} {
		if got := parse(t, "", c.pattern).Skip(c.path, c.dir); got != c.want {
			t.Errorf("%q on %q (dir %v): %v", c.pattern, c.path, c.dir, got)
		}
	}
}

func TestPatternsFoldCase(t *testing.T) {
	p := parse(t, "", "*.TMP /Straße/").FoldCase()
	for path, want := range map[string]bool{"a/B.tmp": true, "STRAßE": true, "x": false} {
		if got := p.Skip(path, true); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestPatternsRefused(t *testing.T) {
	for _, bad := range []string{"", " ", "/", "!x", `a\b`, "a//b", "../x", "a/./b", "[a", "{a,b", "//"} {
		if _, err := ParsePatterns(nil, []string{bad}); err == nil || !strings.Contains(err.Error(), "exclude pattern") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPatternsWalk(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"drivers/intel/a.sys": "", "drivers/intel/old/b.sys": "", "drivers/amd/c.sys": "", "drivers/amd/readme.txt": "",
		"docs/x.txt": "", "docs/deep/y.txt": "", "top.sys": "", "drivers/intel/z.tmp": "",
	})
	for _, c := range []struct{ include, exclude, want string }{
		{"", "*.tmp docs", "drivers drivers/amd drivers/amd/c.sys drivers/amd/readme.txt drivers/intel drivers/intel/a.sys drivers/intel/old drivers/intel/old/b.sys top.sys"},
		{"drivers/intel", "*.tmp", "drivers drivers/intel drivers/intel/a.sys drivers/intel/old drivers/intel/old/b.sys"},
		{"drivers/intel/*.sys", "", "drivers drivers/intel drivers/intel/a.sys"},
		{"drivers/intel/", "old/", "drivers drivers/intel drivers/intel/a.sys drivers/intel/z.tmp"},
		{"/*.sys", "", "top.sys"},
		{"*.txt", "drivers", "docs docs/deep docs/deep/y.txt docs/x.txt"},
	} {
		p := parse(t, c.include, c.exclude)
		if d := cmp.Diff(strings.Fields(c.want), paths(walk(t, dir, WalkOptions{Skip: p.Skip}))); d != "" {
			t.Errorf("include %q exclude %q: %s", c.include, c.exclude, d)
		}
	}
	p := parse(t, "*.txt", "drivers")
	for path, want := range map[string]bool{"docs/deep/y.txt": true, "docs": false, "drivers/amd/readme.txt": false} {
		if got := p.Selects(path, !strings.Contains(path, ".")); got != want {
			t.Errorf("Selects(%s): %v", path, got)
		}
	}
	if (*Patterns)(nil).Skip("x", false) || !(*Patterns)(nil).Selects("x", false) {
		t.Error("nil patterns do not choose everything")
	}
}
