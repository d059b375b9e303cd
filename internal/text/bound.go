package text

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// quoted matches a name in double quotes, as %q writes it.
var quoted = regexp.MustCompile(`"(?:\\.|[^"\\])*"`)

// Bound returns a text of at most n bytes (at least 8). It shortens quoted names in their middle first, since
// the cause of an error follows the names, and then the whole text in its middle.
func Bound(s string, n int) string {
	for keep := n / 2; len(s) > n && keep >= 32; keep /= 2 {
		s = quoted.ReplaceAllStringFunc(s, func(name string) string {
			if len(name) <= keep {
				return name
			}
			return `"` + cutMiddle(name[1:len(name)-1], keep-2) + `"`
		})
	}
	return cutMiddle(s, n)
}

// cutMiddle returns a text of at most n bytes: its beginning and its end. It divides neither a character nor
// a sequence after a backslash.
func cutMiddle(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	head, tail := s[:(n-len(mark))/2], s[len(s)-(n-len(mark))/2:]
	for len(head) > 0 && !utf8.RuneStart(s[len(head)]) {
		head = head[:len(head)-1]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	head = strings.TrimRight(head, `\`)
	if strings.HasSuffix(s[:len(s)-len(tail)], `\`) && tail != "" {
		_, size := utf8.DecodeRuneInString(tail)
		tail = tail[size:]
	}
	return head + mark + tail
}
