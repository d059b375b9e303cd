// Package text reads texts written by people and their shells: tokens, keys,
// passwords, patterns and configurations. PowerShell writes UTF-16 or a byte
// order mark, and cmd.exe a space before the line end; none of it is content.
package text

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	markUTF8 = []byte{0xef, 0xbb, 0xbf}
	markLE   = []byte{0xff, 0xfe}
	markBE   = []byte{0xfe, 0xff}
)

// ErrUTF16 reports a text that looks like UTF-16 but is invalid.
var ErrUTF16 = errors.New("the text is damaged UTF-16: save it as UTF-8")

// Decode returns b as UTF-8 without a byte order mark. It recognizes UTF-16
// by its mark, or by zero bytes at every other position. Other bytes stay
// unchanged.
func Decode(b []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, markUTF8):
		return b[len(markUTF8):], nil
	case bytes.HasPrefix(b, markLE):
		return fromUTF16(b[2:], binary.LittleEndian)
	case bytes.HasPrefix(b, markBE):
		return fromUTF16(b[2:], binary.BigEndian)
	case zeros(b, 1):
		return fromUTF16(b, binary.LittleEndian)
	case zeros(b, 0):
		return fromUTF16(b, binary.BigEndian)
	}
	return b, nil
}

// Value returns a decoded text without trailing spaces, tabs and line ends.
func Value(b []byte) ([]byte, error) {
	b, err := Decode(b)
	return bytes.TrimRight(b, " \t\r\n"), err
}

// ReadFile reads a file of at most limit bytes by read, and decodes it.
func ReadFile(read func(path string, limit int64) ([]byte, error), path string, limit int64) ([]byte, error) {
	b, err := read(path, limit)
	if err != nil {
		return nil, err
	}
	if b, err = Decode(b); err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return b, nil
}

// zeros reports whether b is ASCII in UTF-16 with its zero bytes at the odd
// (from 1) or even (from 0) positions.
func zeros(b []byte, from int) bool {
	if len(b) < 4 || len(b)%2 != 0 {
		return false
	}
	for i, c := range b {
		if (c == 0) != (i%2 == from) {
			return false
		}
	}
	return true
}

func fromUTF16(b []byte, order binary.ByteOrder) ([]byte, error) {
	if len(b)%2 != 0 {
		return nil, ErrUTF16
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	runes := utf16.Decode(units)
	out := make([]byte, 0, len(b))
	for _, r := range runes {
		if r == utf8.RuneError { // half of a surrogate pair
			return nil, ErrUTF16
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}
