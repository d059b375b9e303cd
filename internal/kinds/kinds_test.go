package kinds

import (
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
