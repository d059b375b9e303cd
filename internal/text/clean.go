package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean returns s as one line that is safe to display: valid UTF-8 of at most most bytes, with spaces in place of line
// breaks and tabs, and U+FFFD in place of other control characters, line separators and marks of the reading direction,
// which a terminal or a browser would interpret.
func Clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			return unicode.ReplacementChar
		}
		return r
	}, Bound(s, most))
	if len(s) <= most {
		return s // the replacements can make it longer
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
