package record

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable makes a text safe to print. It escapes everything that a terminal
// would interpret, or that could disguise a text: control and formatting
// characters, line separators, bytes that are not UTF-8.
func Printable(s string) string {
	if !strings.ContainsFunc(s, isUnprintable) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case isUnprintable(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// Lines returns the lines of a text, such as an error that lists names. Each
// is safe to print and trimmed; empty lines are omitted.
func Lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, Printable(line))
		}
	}
	return out
}

// OneLine returns a text as one line: its lines, joined by "; ", or by a
// space after a colon.
func OneLine(s string) string { return strings.ReplaceAll(strings.Join(Lines(s), "; "), ":; ", ": ") }

// isUnprintable reports whether a rune is escaped: every rune except letters,
// marks, digits, punctuation, symbols and the ASCII space. The replacement
// character is escaped too, so that it cannot be mistaken for an invalid
// byte.
func isUnprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// appendSafe appends a line of JSON with every unprintable rune as a \u escape.
// Outside of strings JSON is printable ASCII, so the line means the same.
func appendSafe(dst, line []byte) []byte {
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		switch {
		case r < utf8.RuneSelf && !isUnprintable(r) || !isUnprintable(r):
			dst = append(dst, line[i:i+n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, hi, lo)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		i += n
	}
	return dst
}

// text is a string that preserves bytes that are not UTF-8: a byte 0x80 to
// 0xff is written as the lone surrogate \udc80 to \udcff. Python reads and
// writes such file names in the same way, so its json and os.fsencode restore
// them. Other readers show a replacement character.
type text string

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) {
	out := []byte{'"'}
	for s := string(t); s != ""; {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\udc%02x`, s[0])
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r < ' ':
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, s[:n]...)
		}
		s = s[n:]
	}
	return append(out, '"'), nil
}

// UnmarshalJSON implements json.Unmarshaler. b is a whole JSON value.
func (t *text) UnmarshalJSON(b []byte) error {
	var out []byte
	from := 0 // the bytes from it to i are plain JSON
	flush := func(to int) error {
		var s string
		if err := json.Unmarshal(append(append([]byte{'"'}, b[from:to]...), '"'), &s); err != nil {
			return err
		}
		out = append(out, s...)
		return nil
	}
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("want a string")
	}
	from = 1
	for i := 1; i < len(b)-1; {
		u, ok := parseEscape(b[i:])
		switch {
		case !ok && b[i] == '\\':
			i += 2
		case !ok:
			i++
		case utf16.IsSurrogate(u) && u < 0xdc00: // the first half of a pair
			i += 6
			if low, ok := parseEscape(b[i:]); ok && utf16.IsSurrogate(low) && low >= 0xdc00 {
				i += 6
			}
		case u >= 0xdc80 && u <= 0xdcff:
			if err := flush(i); err != nil {
				return err
			}
			out = append(out, byte(u))
			i += 6
			from = i
		default:
			i += 6
		}
	}
	if err := flush(len(b) - 1); err != nil {
		return err
	}
	*t = text(out)
	return nil
}

// parseEscape parses a \uXXXX at the start of b.
func parseEscape(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 32)
	return rune(v), err == nil
}
