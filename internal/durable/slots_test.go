package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func openSlots(t *testing.T, dir string) (*Slots, string) {
	t.Helper()
	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, v, err := OpenSlots(r, "slots", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = r.Close() })
	return s, string(v)
}

// TestSlots: the newest value is found again. If a slot is torn, the previous value is returned. The file keeps its
// size.
func TestSlots(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slots")
	s, v := openSlots(t, dir)
	if v != "" {
		t.Errorf("a new file holds %q", v)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "", "a third that is longer", "four"} {
		if err := s.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, v := openSlots(t, dir); v != want {
			t.Errorf("%q is read, %q was written", v, want)
		}
	}
	if err := s.Write(make([]byte, 1<<16+1)); err == nil {
		t.Error("a value without room is written")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte("four"))
	b[i] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	torn, v := openSlots(t, dir)
	if v != "a third that is longer" {
		t.Errorf("behind a torn slot lies %q", v)
	}
	if err := torn.Write([]byte("five")); err != nil {
		t.Fatal(err)
	}
	if _, v := openSlots(t, dir); v != "five" {
		t.Errorf("%q", v)
	}
	after, err := os.Stat(path)
	if err != nil || after.Size() != before.Size() {
		t.Errorf("the file has %v bytes, %d when it was made: %v", after.Size(), before.Size(), err)
	}
	// A file that was truncated while it was made holds no value.
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, v := openSlots(t, dir); v != "" {
		t.Errorf("%q", v)
	}
	if again, err := os.Stat(path); err != nil || again.Size() != before.Size() {
		t.Errorf("its room is not made up: %v, %v", again, err)
	}
}
