package text

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf16"
)

// utf16le returns a text as PowerShell 5.1 writes it to a file.
func utf16le(s string, mark bool) (b []byte) {
	if mark {
		b = append(b, 0xff, 0xfe)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

func utf16be(s string) (b []byte) {
	b = append(b, 0xfe, 0xff)
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return b
}

func TestDecode(t *testing.T) {
	const s = "nf1.token-äö😀\r\n"
	for name, b := range map[string][]byte{"plain": []byte(s), "mark": append([]byte{0xef, 0xbb, 0xbf}, s...), "le": utf16le(s, true), "be": utf16be(s)} {
		if got, err := Decode(b); err != nil || string(got) != s {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := Value(append(b, []byte{}...)); err != nil || string(got) != s[:len(s)-2] {
			t.Errorf("%s: the value is %q, %v", name, got, err)
		}
	}
	if got, err := Value(utf16le("key \r\n", false)); err != nil || string(got) != "key" {
		t.Errorf("without a mark: %q, %v", got, err)
	}
	// Bytes that are not text stay unchanged.
	for _, raw := range []string{"", "a", "\x00\x00\x00\x00", "\xffraw\xfe", "a\x00b"} {
		if got, err := Decode([]byte(raw)); err != nil || string(got) != raw {
			t.Errorf("%q became %q, %v", raw, got, err)
		}
	}
	for _, bad := range [][]byte{{0xff, 0xfe, 'a'}, {0xff, 0xfe, 0x00, 0xd8, 'a', 0}, {0xfe, 0xff, 0xdc, 0x00}} {
		if got, err := Decode(bad); !errors.Is(err, ErrUTF16) {
			t.Errorf("%x became %q, %v", bad, got, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(p, utf16le("+ **\r\n", true), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(path string, limit int64) ([]byte, error) {
		if limit != 100 {
			return nil, fs.ErrInvalid
		}
		return os.ReadFile(path)
	}
	if b, err := ReadFile(read, p, 100); err != nil || string(b) != "+ **\r\n" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadFile(read, p, 4); err == nil {
		t.Error("an error of the reader is lost")
	}
}
