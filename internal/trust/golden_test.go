package trust

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
)

// golden reads an artefact of format 1 that was written when the format was
// frozen. These files never change: a program that cannot read them cannot
// read any bucket.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "format1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// needSeeds fails a fuzz test whose committed seeds are missing: without
// seeds it would pass without testing anything.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
}

func goldenHead() *Head {
	return &Head{Release: ReleaseDigest(digest.Of([]byte("release"))), Expires: 1_701_209_600}
}

// goldenSubjects returns the subjects of the golden objects.
func goldenSubjects() map[string]Subject {
	return map[string]Subject{
		"trust": {Kind: DocKind, Version: DocVersion, Repo: RepoID{5}, Number: 2},
		"head":  {Kind: HeadKind, Version: HeadVersion, Repo: RepoID{5}, Scope: "driver", Number: 4},
	}
}

// TestGolden reads objects that key 01…01 signed when format 1 was frozen,
// and signs them again: Ed25519 is deterministic.
func TestGolden(t *testing.T) {
	for name, s := range goldenSubjects() {
		b := golden(t, name)
		p, err := Parse(s.Kind, s.Version, MaxDoc, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Verify(s); err != nil || p.Signer != public(1) {
			t.Errorf("%s: signed by %s, %v", name, p.Signer, err)
		}
		if again, err := Sign(key(1), s, p.Payload); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: encodes as %x, %v", name, again, err)
		}
		switch name {
		case "trust":
			got, err := DecodeDoc(p.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(doc(), got, equal...); d != "" {
				t.Error(d)
			}
			if again, err := got.Encode(); err != nil || !bytes.Equal(again, p.Payload) {
				t.Errorf("the document encodes as %x, %v", again, err)
			}
		case "head":
			got, err := DecodeHead(p.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(goldenHead(), got, equal...); d != "" {
				t.Error(d)
			}
			if again, err := got.Encode(); err != nil || !bytes.Equal(again, p.Payload) {
				t.Errorf("the head encodes as %x, %v", again, err)
			}
		}
	}
}

// FuzzParse checks that every object that parses is signed into the same
// bytes, except for the signature, and verifies only if it is a golden one.
func FuzzParse(f *testing.F) {
	needSeeds(f)
	f.Add(golden(f, "trust"))
	f.Add(golden(f, "head"))
	good := [][]byte{golden(f, "trust"), golden(f, "head")}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []string{DocKind, HeadKind} {
			p, err := Parse(kind, 1, MaxDoc, b)
			if err != nil {
				continue
			}
			again, err := Sign(key(1), p.Subject, p.Payload)
			if err != nil || len(again) != len(b) {
				t.Fatalf("%x is signed as %x, %v", b, again, err)
			}
			// Copy b's signer and signature into again: all other bytes must
			// be equal.
			copy(again[len(again)-64:], b[len(b)-64:])
			again = bytes.Replace(again, append([]byte{0x58, 32}, pub(1)...), append([]byte{0x58, 32}, p.Signer[:]...), 1)
			if !bytes.Equal(again, b) {
				t.Fatalf("%x comes back as %x", b, again)
			}
			if p.Signer == public(1) && p.Verify(p.Subject) == nil && !bytes.Equal(b, good[0]) && !bytes.Equal(b, good[1]) && !seeded(b) {
				t.Fatalf("%x verifies, and nobody signed it", b)
			}
		}
	})
}

// seeded reports whether a seed of the corpus signed the object.
func seeded(b []byte) bool { return bytes.Contains(b, []byte("seeded")) }

func pub(n byte) []byte { p := public(n); return p[:] }

func FuzzDecodeDoc(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDoc(b)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHead(b)
		if err != nil {
			return
		}
		if again, err := h.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

// FuzzKeyFiles checks that every key that parses is written as the same key.
func FuzzKeyFiles(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseSecret("root", b); err == nil {
			if again, err := ParseSecret("root", EncodeSecret("root", k)); err != nil || !again.Equal(k) {
				t.Fatalf("%q: %v", b, err)
			}
		}
		if p, err := ParsePublic("root", b); err == nil {
			if again, err := ParsePublic("root", EncodePublic("root", p)); err != nil || again != p {
				t.Fatalf("%q: %v", b, err)
			}
		}
	})
}
