package kinds

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRemedyOfRuns: the remedy of a run that fails is about its cause.
func TestRemedyOfRuns(t *testing.T) {
	const prefix = "site locked, channel in-use: two runs in a row ended incomplete, the last is 1a2b3c4d: "
	for text, want := range map[string][]string{
		`open "x": read-only file system`: {"remount,rw"},
		"rename x: permission denied":     {"setfacl"},
		`remove "x": Access is denied.`:   {"icacls"},
		`rename "a" to "b": its folder is marked immutable or append-only: operation not permitted`:                                  {"chattr -i -a"},
		`remove "locked by": it belongs to account 0, and its folder has the sticky bit: operation not permitted`:                    {"chmod -t"},
		`chmod "permission denied": operation not permitted`:                                                                         {"SELinux"},
		`probe "x": locked by another process`:                                                                                       {"which program"},
		`this folder holds channel "image", not "package"`:                                                                           {"folder of its own"},
		`open "x": The process cannot access the file because it is being used by another process.`:                                  {"which program"},
		`2 files failed in "/srv": probe "a": marked immutable or append-only: operation not permitted; open "b": permission denied`: {"chattr", ". Also: ", "setfacl"},
		`"chattr" and "locked by"`: {"nightferry sync"},
		"something":                {"nightferry sync"},
	} {
		got := Remedy(RunFails, prefix+text)
		for _, part := range want {
			if !strings.Contains(got, part) || strings.Contains(got, "`") {
				t.Errorf("%q: %q lacks %q", text, got, part)
			}
		}
		if len(want) == 1 && strings.Contains(got, "Also: ") {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := Remedy("site-unheard", ""); got == "" {
		t.Error("a kind of a newer agent has no remedy")
	}
}

// TestCausesAreReal: each part that is this product's own text, and no
// system's, stands in the code of another room.
func TestCausesAreReal(t *testing.T) {
	systems := []string{"operation not permitted", "read-only file system", "write protected", "permission denied", "Access is denied", "no space left",
		"input/output error", "stale", "used by another process", "text file busy"}
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(filepath.Dir(name)) == "kinds" {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	for _, c := range causes {
		if !slices.Contains(systems, c.part) && !strings.Contains(code.String(), c.part) {
			t.Errorf("no error says %q: its remedy is never shown", c.part)
		}
	}
}
