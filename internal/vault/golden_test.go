package vault

import (
	"errors"
	"os"
	"testing"

	"nightferry/internal/frame"
)

func goldenMaster() Master {
	key := make([]byte, MasterSize)
	for i := range key {
		key[i] = byte(i)
	}
	return masterOf(NewSecret(key))
}

// TestGolden opens a vault of format 1 that was written when the format was
// defined. Every later nightferry must open it.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/vault-1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseFile(b, goldenMaster().keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name    string
		version int
		value   string
	}{{"domain/apac/signing", 1, "first"}, {"domain/apac/signing", 2, "second"}, {"smtp", 1, "mail\x00\xff"}} {
		e := c.findEntry(want.name, want.version)
		if e == nil {
			t.Fatalf("%s %d is not there", want.name, want.version)
		}
		if value, err := c.openValue(e); err != nil || string(value) != want.value || e.Created != start().Unix() {
			t.Errorf("%s %d is %q of %d, %v", want.name, want.version, value, e.Created, err)
		}
	}
	newer := append([]byte(nil), b...)
	newer[7] = version + 1
	var upgrade *frame.NewerError
	if _, err := parseFile(newer, goldenMaster().keys); !errors.As(err, &upgrade) {
		t.Errorf("a newer vault says %v, want a *frame.NewerError", err)
	}
}

// FuzzParse parses bodies with a correct checksum: only bodies written with
// the master key may open, and nothing may panic.
func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/vault-1")
	if err != nil {
		f.Fatal(err)
	}
	good := b[:len(b)-32]
	f.Add(good)
	f.Add(good[:frame.HeaderSize])
	f.Add(append(append([]byte(nil), good...), 0))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseFile(frame.AppendSum(body), goldenMaster().keys)
		if err == nil && string(body) != string(good) {
			t.Errorf("a forged vault opened: %d entries", len(c.Entries))
		}
	})
}
