package manifest

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCheckPathTakes(t *testing.T) {
	for _, p := range []string{
		"a", "a/b", ".hidden", "a b/c d", "日本語/ドライバ.inf", "with.dots.in.it", "~", "file~1", "a~1.txt",
		"COM", "COM10", "COMIC", "LPT", "LPTX", "CONSOLE.TXT", "CONIN", "NULL", "auxiliary", "xCON", "com1x", "COM¹²",
		strings.Repeat("x", MaxName), strings.Repeat(strings.Repeat("x", 15)+"/", 255) + strings.Repeat("x", 16),
		"a/.nightferry", "a/NIGHTF~1", ".nightferry2", "nightferry", "NIGHTFERRY~1", "NIGHTF~1x", "NIGHTF~x", "NI~", "NIXXXX~1", "emoji 🚢",
		"non-breaking\u00a0space", "a/-", "$Recycle.Bin",
	} {
		for _, portable := range []bool{true, false} {
			if err := CheckPath(p, portable); err != nil {
				t.Errorf("portable %v: %v", portable, err)
			}
		}
	}
}

func TestCheckPathRefusesEverywhere(t *testing.T) {
	for _, p := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", "./a",
		"a\x00b", "a\nb", "a\tb", "\x1b[2J", "a\x7f", "a\u0085b", "a\u009bb", "\u0080",
		"\xff", "a/\xc3", "\xed\xa0\x80", "\xc0\xaf",
		strings.Repeat("x", MaxName+1), strings.Repeat("é", 128), strings.Repeat("a/", MaxPath/2) + "a",
		".nightferry", ".NightFerry", ".nightferry/x", ".NIGHTFERRY/state", ".nightferry.", ".nightferry. .", "NIGHTF~1", "nightf~1/x",
		"NIGHT~10", "NI~1", "NI12AB~1", "ni12ab~9/x",
	} {
		for _, portable := range []bool{true, false} {
			var pe *PathError
			if err := CheckPath(p, portable); !errors.As(err, &pe) || pe.Path != p || pe.Why == "" {
				t.Errorf("portable %v: %q: error is %v", portable, p, err)
			}
		}
	}
}

func TestCheckPathRefusesWhatWindowsCannotHold(t *testing.T) {
	for _, p := range []string{
		"C:", "C:/a", "C:a", "a:stream", "a::$DATA", `a\b`, `\\server\share`, `\\?\C:`, "a<b", "a>b", `a"b`, "a|b", "a?b", "a*b",
		"a.", "a ", "a../b", "dir /b", "...", "CON", "con", "Con.txt", "x/NUL", "nul.tar.gz", "AUX ", "PRN .txt", "aux .x",
		"COM0", "COM1", "com9.log", "LPT0", "LPT9", "lpt1.x", "COM¹", "com²", "LPT³.txt", "CONIN$", "conout$", "CONOUT$.x",
	} {
		var pe *PathError
		if err := CheckPath(p, true); !errors.As(err, &pe) {
			t.Errorf("%q: error is %v", p, err)
		}
		if err := CheckPath(p, false); err != nil {
			t.Errorf("%q, not portable: %v", p, err)
		}
	}
}

func TestFold(t *testing.T) {
	for _, c := range [][2]string{
		{"readme", "README"}, {"Straße", "STRAßE"}, {"é", "É"}, {"ж", "Ж"}, {"ﬁ", "ﬁ"}, {"𐐨", "𐐨"}, {"a-é-b", "A-É-B"},
	} {
		if got := Fold(c[0]); got != c[1] {
			t.Errorf("Fold(%q) = %q, want %q", c[0], got, c[1])
		}
	}
}

// TestComparePathsIsAWalksOrder compares the order with filepath.WalkDir,
// which sorts the names of each folder, on a real tree.
func TestComparePathsIsAWalksOrder(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a", "a b", "a-b/x", "a.txt", "a/b", "a!", "aa", "b/c/d", "b/c.d", "b/c-d", "B", "é/x", "~"} {
		p = filepath.Join(dir, strings.ReplaceAll(p+".d", "/", ".d/"))
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"x", "a", "a.d/x", "b.d/c", "b.d/c!"} {
		if err := os.WriteFile(filepath.Join(dir, p), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var walked []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, _ fs.DirEntry, err error) error {
		if p != "." {
			walked = append(walked, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.Clone(walked)
	slices.SortFunc(sorted, ComparePaths)
	if d := gocmp.Diff(walked, sorted); d != "" {
		t.Errorf("walked against sorted:\n%s", d)
	}
}

func TestComparePathsOrders(t *testing.T) {
	path := rapid.StringMatching(`[ab/.!é]{0,6}`)
	key := func(p string) string { return strings.ReplaceAll(p, "/", "\x00") }
	rapid.Check(t, func(t *rapid.T) {
		a, b := path.Draw(t, "a"), path.Draw(t, "b")
		if got, want := ComparePaths(a, b), cmp.Compare(key(a), key(b)); cmp.Compare(got, 0) != want {
			t.Fatalf("ComparePaths(%q, %q) = %d, want the sign of %d", a, b, got, want)
		}
	})
}

func TestCheckChannel(t *testing.T) {
	for _, c := range []string{"a", "package", "driver-2", "0", "a_b", strings.Repeat("x", 64)} {
		if err := CheckChannel(c); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []string{"", "-a", "_a", "A", "a/b", "a.b", "..", "a b", "é", strings.Repeat("x", 65)} {
		if CheckChannel(c) == nil {
			t.Errorf("channel %q was taken", c)
		}
	}
}
