package durable

import (
	"bytes"
	"errors"
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

// TestSlotsOfAnotherSize: a file in which a version with other slots stored a value is not overwritten, nor is one
// that was cut off.
func TestSlotsOfAnotherSize(t *testing.T) {
	for name, change := range map[string]struct {
		max int
		cut int64
	}{"larger slots": {1 << 17, 0}, "smaller slots": {1 << 10, 0}, "cut off": {1 << 16, 1<<16 + 1000}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r, err := Open(dir, Options{})
			ok(t, err)
			defer func() { ok(t, r.Close()) }()
			s, _, err := OpenSlots(r, "slots", change.max)
			ok(t, err)
			ok(t, s.Write([]byte("one")))
			ok(t, s.Write([]byte("two")))
			ok(t, s.Close())
			path := filepath.Join(dir, "slots")
			if change.cut > 0 {
				ok(t, os.Truncate(path, change.cut))
			}
			before, err := os.ReadFile(path)
			ok(t, err)
			if s, _, err := OpenSlots(r, "slots", 1<<16); err == nil {
				t.Errorf("it is opened: %v", s.Close())
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("it is overwritten: %v", err)
			}
		})
	}
}

// failing fails the operations of a kind, times times.
type failing struct {
	kind  OpKind
	times int
}

func (f *failing) Before(op Op) error {
	if op.Kind == f.kind && f.times > 0 {
		f.times--
		return errors.New("input/output error")
	}
	return nil
}

// TestSlotsFailedSync: a value whose sync failed is not read later as if it were durable.
func TestSlotsFailedSync(t *testing.T) {
	dir := t.TempDir()
	var f failing
	r, err := Open(dir, Options{Observer: &f})
	ok(t, err)
	defer func() { ok(t, r.Close()) }()
	s, _, err := OpenSlots(r, "slots", 1<<16)
	ok(t, err)
	defer func() { ok(t, s.Close()) }()
	ok(t, s.Write([]byte("one")))
	f = failing{SyncFile, 1}
	if err := s.Write([]byte("two")); err == nil {
		t.Fatal("a write without a sync succeeded")
	}
	if _, v := openSlots(t, dir); v != "one" {
		t.Errorf("%q is read, one was durable", v)
	}
	ok(t, s.Write([]byte("three")))
	if _, v := openSlots(t, dir); v != "three" {
		t.Errorf("%q", v)
	}
}
