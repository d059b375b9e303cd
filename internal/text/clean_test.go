package text

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"wrong\r\ndrivers\tagain": "wrong  drivers again",
		"\x1b[31mred\x00":         "\ufffd[31mred\ufffd",
		"a\u202eb\u2028c\u2066":   "a\ufffdb\ufffdc\ufffd",
		"bad \xff byte":           "bad \ufffd byte",
		"plain":                   "plain",
	} {
		if got := Clean(in, 100); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{strings.Repeat("\u202e", 300), strings.Repeat("\x01", 300), strings.Repeat("é", 300), strings.Repeat("\xff", 300)} {
		if got := Clean(in, 100); len(got) > 100 || !utf8.ValidString(got) {
			t.Errorf("%d bytes of %.8q: valid %t", len(got), in, utf8.ValidString(got))
		}
	}
}
