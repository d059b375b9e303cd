package manifest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

func sumOf(es []Entry) (Totals, digest.Digest) {
	var c Checker
	for i := range es {
		if err := c.Add(&es[i]); err != nil {
			panic(err)
		}
	}
	return c.Sum()
}

// TestTreeDigestIsReproducibleWithCoreutils makes a real tree with names that
// sort and quote badly, and computes its digest with sha256sum, sort and tr.
func TestTreeDigestIsReproducibleWithCoreutils(t *testing.T) {
	recipe := recipe(t)
	for _, tool := range []string{"sh", "find", "xargs", "sha256sum", "tr", "sort", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: the recipe cannot be run", tool)
		}
	}
	dir := t.TempDir()
	var es []Entry
	for _, p := range []string{"a/b/c", "a/b.c", "a.b", "a", "a b/x y", "a-b", "b/empty/", `back\slash`, "é/ü", "quote'\"$(x)", "z", "  lead", "dir  x", "[a]*"} {
		if p == "a" {
			continue // it is a folder here
		}
		if strings.HasSuffix(p, "/") {
			must(t, os.MkdirAll(filepath.Join(dir, p), 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Join(dir, path.Dir(p)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, p), []byte("content of "+p), 0o644))
	}
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		e := Entry{Path: filepath.ToSlash(rel)}
		if d.IsDir() {
			e.Kind = Dir
		} else {
			b, err := os.ReadFile(p)
			must(t, err)
			e.Digest, e.Size = digest.Of(b), int64(len(b))
		}
		es = append(es, e)
		return err
	}))
	_, want := sumOf(es)
	cmd := exec.Command("sh", "-c", recipe)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); len(got) == 0 || got[0] != want.String() {
		t.Errorf("coreutils say %s, the tree digest is %s", out, want)
	}
	if _, empty := sumOf(nil); empty != digest.Of(nil) {
		t.Error("the tree digest of nothing is not the SHA-256 of nothing")
	}
}

// recipe returns the shell script in docs/format/release.md, so that the test
// runs the documented script.
func recipe(t *testing.T) string {
	b, err := os.ReadFile("../../docs/format/release.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "```sh\n")
	text, _, ok2 := strings.Cut(text, "```")
	if !ok || !ok2 {
		t.Fatal("docs/format/release.md shows no recipe")
	}
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func file(p string) *Entry { return &Entry{Path: p, Size: 3, Digest: id(p)} }
func dir(p string) *Entry  { return &Entry{Path: p, Kind: Dir} }

func TestCheckerTakes(t *testing.T) {
	c := Checker{Portable: true}
	for _, e := range []*Entry{
		file("A"), dir("a b"), file("a b/x"), dir("d"), dir("d/d"), file("d/d/x"), file("d/x"), dir("d.d"), file("d.d/d"), file("e"), file("x"),
	} {
		if err := c.Add(e); err != nil {
			t.Error(err)
		}
	}
	totals, _ := c.Sum()
	if want := (Totals{Files: 7, Dirs: 4, Bytes: 21}); totals != want {
		t.Errorf("totals are %+v, want %+v", totals, want)
	}
}

func TestCheckerRefusesDamage(t *testing.T) {
	for name, es := range map[string][]*Entry{
		"a path twice":                 {file("a"), file("a")},
		"out of order":                 {file("b"), file("a")},
		"out of order across folders":  {dir("a"), file("a.b"), file("a/b")},
		"no parent":                    {file("a/b")},
		"a parent that is a file":      {file("a"), file("a/b")},
		"a parent that has been left":  {dir("a"), dir("b"), file("b/a"), file("c/a")},
		"a grandparent without parent": {dir("a"), file("a/b/c")},
		"more bytes than there can be": {{Path: "a", Size: MaxBytes, Digest: id("a")}, file("b")},
	} {
		c := Checker{Portable: true}
		var err error
		for _, e := range es {
			if err = c.Add(e); err != nil {
				break
			}
		}
		if !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	c := Checker{totals: Totals{Files: MaxEntries - 1}}
	if err := c.Add(file("a")); err != nil {
		t.Errorf("as many entries as there can be: %v", err)
	}
	if err := c.Add(dir("b")); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("more entries than there can be: %v", err)
	}
}

func TestCheckerFindsAliases(t *testing.T) {
	es := []*Entry{dir("A"), file("A/x"), dir("B"), file("B/README"), file("B/Readme"), file("B/other"), file("B/readme"), dir("a"), file("a/x"), dir("É"), file("é")}
	for _, portable := range []bool{true, false} {
		c := Checker{Portable: portable}
		var found []string
		for _, e := range es {
			var alias *AliasError
			err := c.Add(e)
			if errors.As(err, &alias) {
				found = append(found, alias.Path)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		want := "B/Readme B/readme a é"
		if !portable {
			want = ""
		}
		if got := strings.Join(found, " "); got != want {
			t.Errorf("portable %v: aliases are %q, want %q", portable, got, want)
		}
	}
}

// TestCheckerForgetsFolders reuses the sets of names: a name in one folder
// must not be an alias of a name in the next.
func TestCheckerForgetsFolders(t *testing.T) {
	c := Checker{Portable: true}
	for i := range 1000 {
		d := fmt.Sprintf("%04d", i)
		if err := c.Add(dir(d)); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			if err := c.Add(file(fmt.Sprintf("%s/%d", d, j))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCheckerFinish(t *testing.T) {
	var c Checker
	for _, e := range []*Entry{dir("d"), file("d/x")} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	totals, tree := c.Sum()
	if err := c.Finish(&Release{Totals: totals, Tree: tree}); err != nil {
		t.Error(err)
	}
	other := totals
	other.Bytes++
	for name, r := range map[string]*Release{"other totals": {Totals: other, Tree: tree}, "another tree": {Totals: totals, Tree: id("x")}} {
		if err := c.Finish(r); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestTreeDigestCoversNamesKindsAndContent(t *testing.T) {
	_, base := sumOf([]Entry{*dir("d"), *file("d/x")})
	for name, es := range map[string][]Entry{
		"a name": {*dir("d"), *file("d/y")}, "content": {*dir("d"), {Path: "d/x", Digest: id("other")}},
		"a folder": {*dir("d"), *dir("d/x")}, "one less": {*dir("d")},
	} {
		if _, got := sumOf(es); got == base {
			t.Errorf("%s: the tree digest stays", name)
		}
	}
	same := *file("d/x")
	same.MTime, same.Mode = 5, 0o600
	if _, got := sumOf([]Entry{*dir("d"), same}); got != base {
		t.Error("the tree digest covers times or modes")
	}
}
