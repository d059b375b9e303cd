package wire

import (
	"bytes"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/frame"
	"nightferry/internal/runs"
)

// exported lets cmp compare the unexported marker of each message.
var exported = cmp.Exporter(func(reflect.Type) bool { return true })

// needSeeds fails a fuzz test without committed seeds, which would pass without testing anything.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
}

// bodies returns one value of each type that is decoded from received data.
func bodies() []any {
	all := []any{&Started{}, &Finished{}, &Problem{}}
	for _, m := range messages() {
		all = append(all, m.into)
	}
	return all
}

// FuzzBody decodes each type as after a valid signature. The first byte selects the type. Data that decodes must encode
// to the same bytes.
func FuzzBody(f *testing.F) {
	needSeeds(f)
	for i, v := range append([]any{&Started{Trigger: "scrub"}, &Finished{Verdict: "verified"}, &Problem{Kind: "clock"}}, values()...) {
		b, err := frame.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{byte(i)}, b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		all := bodies()
		v := all[int(b[0])%len(all)]
		_ = Decode(b[1:], bodies()[int(b[0])%len(all)]) // must not panic; it also cleans texts
		if err := frame.UnmarshalSmall(b[1:], v); err != nil {
			return
		}
		if again, err := frame.Marshal(v); err != nil || !bytes.Equal(again, b[1:]) {
			t.Fatalf("%x comes back as %x, %v", b[1:], again, err)
		}
	})
}

func values() (all []any) {
	for _, m := range messages() {
		all = append(all, m.v)
	}
	return all
}

func FuzzOutcomes(f *testing.F) {
	needSeeds(f)
	b, err := EncodeOutcomes([]File{{Outcome: runs.FileAdded, Ordinal: 3, Fetched: 5}, {Outcome: runs.FileMoved, Ordinal: 1, From: "a"}, {Outcome: runs.FileDeleted, Path: "x"}, {Outcome: runs.FileFailed, Ordinal: 9, Cause: "c", Held: 1 << 40}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := DecodeOutcomes(b)
		if err != nil {
			return
		}
		if again, err := EncodeOutcomes(all); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

func FuzzToken(f *testing.F) {
	needSeeds(f)
	tok := &Token{Core: []string{"tls://c:1"}, Repo: repo, Root: public(9), Domain: "d", Site: "s", ID: "t", Seed: make([]byte, 32), JWT: "j"}
	text, err := tok.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := got.Text()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseToken(again); err != nil || cmp.Diff(got, back, exported) != "" {
			t.Fatalf("%q comes back as %q, %v", s, again, err)
		}
	})
}

// FuzzOpenDown checks that no unsigned message is accepted.
func FuzzOpenDown(f *testing.F) {
	needSeeds(f)
	m, err := Sign(key(1), repo, here, VerbState, 1, &State{At: 5})
	if err != nil {
		f.Fatal(err)
	}
	good, err := (&Down{Trust: doc(f, 9, 1, 1), Message: m}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Chain{Repo: repo, Root: public(9)}
		var s State
		if _, _, err := c.OpenDown(b, here, VerbState, &s); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("%x was taken: %+v", b, s)
		}
	})
}

func FuzzSubject(f *testing.F) {
	needSeeds(f)
	f.Add(here.Up(VerbHello))
	f.Fuzz(func(t *testing.T, s string) {
		if a, verb, err := ParseUp(s); err == nil && a.Up(verb) != s {
			t.Fatalf("%q comes back as %q", s, a.Up(verb))
		}
		if a, verb, err := ParseDown(s); err == nil && a.Down(verb) != s {
			t.Fatalf("%q comes back as %q", s, a.Down(verb))
		}
	})
}
