package text

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestBoundKeepsTheCause: a long name does not push the cause of an error out of its text.
func TestBoundKeepsTheCause(t *testing.T) {
	for _, name := range []string{strings.Repeat("a long folder/", 300) + "the file.sys", strings.Repeat("déjà/", 900), strings.Repeat(`\\"`, 900), strings.Repeat("\xff", 2000)} {
		for _, n := range []int{200, 300, 1 << 10} {
			for _, s := range []string{
				fmt.Sprintf("rename %q: read-only file system", name),
				fmt.Sprintf("stage %q to %q: permission denied: read-only file system", name, name),
				name + ": read-only file system",
			} {
				got := Bound(s, n)
				if len(got) > n || !strings.HasSuffix(got, "read-only file system") || !strings.Contains(got, "…") || utf8.ValidString(s) && !utf8.ValidString(got) {
					t.Errorf("%d bytes of %.40q: %q", n, s, got)
				}
				if strings.HasPrefix(s, "stage") && !strings.Contains(got, ": permission denied: ") {
					t.Errorf("the middle is missing: %q", got)
				}
				if strings.HasPrefix(s, "rename") && quoted.ReplaceAllString(got, "") != "rename : read-only file system" {
					t.Errorf("the quotes of %q no longer match", got)
				}
			}
		}
	}
	if s := `rename "a": busy`; Bound(s, 200) != s {
		t.Error("a short text is changed")
	}
}
