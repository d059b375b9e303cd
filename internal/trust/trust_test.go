package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

var equal = []cmp.Option{cmpopts.EquateEmpty(), cmp.AllowUnexported(Doc{}, Key{}, Head{})}

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(n byte) (p Public) {
	copy(p[:], key(n).Public().(ed25519.PublicKey))
	return p
}

func subject() Subject {
	return Subject{Kind: "rels", Version: 1, Repo: RepoID{5}, Scope: "driver", Number: 4}
}

func sign(t testing.TB, s Subject, payload string) []byte {
	t.Helper()
	b, err := Sign(key(1), s, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedRoundTrip(t *testing.T) {
	for _, payload := range []string{"payload", ""} {
		b := sign(t, subject(), payload)
		s, err := Parse("rels", 1, len(b), b)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(subject()); err != nil {
			t.Error(err)
		}
		if s.Subject != subject() || s.Signer != public(1) || string(s.Payload) != payload || s.Digest != digest.Of(b) {
			t.Errorf("parsed %+v", s)
		}
	}
}

// TestVerifyRefusesAnotherSubject verifies a valid object against another
// kind, repository, channel or number.
func TestVerifyRefusesAnotherSubject(t *testing.T) {
	s, err := Parse("rels", 1, 1<<10, sign(t, subject(), "payload"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Subject){
		"another kind":       func(s *Subject) { s.Kind = "head" },
		"another repository": func(s *Subject) { s.Repo[15] = 1 },
		"another scope":      func(s *Subject) { s.Scope = "patch" },
		"no scope":           func(s *Subject) { s.Scope = "" },
		"another number":     func(s *Subject) { s.Number++ },
		"an older version":   func(s *Subject) { s.Version = 0 },
	} {
		want := subject()
		change(&want)
		if err := s.Verify(want); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	newer := subject()
	newer.Version = 9
	if err := s.Verify(newer); err != nil {
		t.Errorf("a reader of newer versions refuses an old one: %v", err)
	}
}

// TestVerifyRefusesAnotherSubjectInItsBytes also rewrites the fields, as an
// attacker with write access to the bucket could: the signature covers them
// all.
func TestVerifyRefusesAnotherSubjectInItsBytes(t *testing.T) {
	e := envelope{Repo: RepoID{5}, Scope: "driver", Number: 4, Signer: public(1), Payload: []byte("payload")}
	m, err := message(subject(), e.Signer, e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	e.Sig = ed25519.Sign(key(1), m)
	verify := func(kind string, e envelope) error {
		b, err := frame.Encode(kind, 1, &e)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(kind, 1, 1<<10, b)
		if err != nil {
			return err
		}
		return s.Verify(s.Subject)
	}
	if err := verify("rels", e); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*envelope){
		"another repository": func(e *envelope) { e.Repo[0]++ },
		"another scope":      func(e *envelope) { e.Scope = "patch" },
		"another number":     func(e *envelope) { e.Number = 5 },
		"another signer":     func(e *envelope) { e.Signer = public(2) },
		"another payload":    func(e *envelope) { e.Payload = []byte("paylaod") },
		"no payload":         func(e *envelope) { e.Payload = nil },
		"no signature":       func(e *envelope) { e.Sig = make([]byte, ed25519.SignatureSize) },
	} {
		c := e
		change(&c)
		if err := verify("rels", c); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if err := verify("head", e); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a release as a head: error is %v", err)
	}
}

func TestAnyAlteredByteIsRefused(t *testing.T) {
	b := sign(t, subject(), "payload")
	for i := range b {
		for _, x := range []byte{1, 0x80} {
			bad := bytes.Clone(b)
			bad[i] ^= x
			s, err := Parse("rels", 1, len(b), bad)
			if err == nil {
				err = s.Verify(subject())
			}
			if err == nil {
				t.Fatalf("byte %d altered: trusted", i)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := sign(t, subject(), "payload")
	for name, b := range map[string][]byte{"nothing": nil, "cut short": good[:len(good)-1], "a byte more": append(bytes.Clone(good), 0), "another kind": sign(t, Subject{Kind: "head", Version: 1}, "x")} {
		if _, err := Parse("rels", 1, 1<<10, b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := Parse("rels", 1, len(good)-1, good); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("above the bound: %v", err)
	}
	for name, e := range map[string]envelope{
		"a long scope": {Scope: strings.Repeat("x", MaxScope+1), Sig: make([]byte, 64)}, "a short signature": {Sig: make([]byte, 63)}, "a long signature": {Sig: make([]byte, 65)},
	} {
		b, err := frame.Encode("rels", 1, &e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("rels", 1, 1<<10, b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	var newer *frame.NewerError
	s := subject()
	s.Version = 2
	if _, err := Parse("rels", 1, 1<<10, sign(t, s, "x")); !errors.As(err, &newer) {
		t.Errorf("a newer version: %v", err)
	}
	if p, err := Parse("rels", 3, 1<<10, sign(t, s, "x")); err != nil || p.Subject.Version != 2 || p.Verify(Subject{Kind: "rels", Version: 3, Repo: s.Repo, Scope: s.Scope, Number: s.Number}) != nil {
		t.Errorf("an older version: %+v, %v", p, err)
	}
}

func TestSignRefuses(t *testing.T) {
	for name, s := range map[string]Subject{"a long kind": {Kind: "relss", Version: 1}, "no version": {Kind: "rels"}, "a long scope": {Kind: "rels", Version: 1, Scope: strings.Repeat("x", MaxScope+1)}} {
		if _, err := Sign(key(1), s, nil); err == nil {
			t.Errorf("%s: was signed", name)
		}
	}
}

func doc() *Doc {
	return &Doc{Keys: []Key{
		{Public: public(1), Roles: Releases | Heads | Halts, Status: Active, Since: 1_700_000_000},
		{Public: public(2), Roles: Releases | Heads | Halts, Status: Retired, Since: 1_700_000_001},
		{Public: public(3), Roles: Releases | Heads | Halts, Status: Revoked},
		{Public: public(4), Roles: Heads},
	}}
}

// TestAllows tests every combination of key status and role.
func TestAllows(t *testing.T) {
	d := doc()
	for _, c := range []struct {
		signer                 byte
		releases, heads, halts bool
	}{
		{1, true, true, true},
		{2, true, false, false}, // retired: its releases stay valid
		{3, false, false, false},
		{4, false, true, false},
		{5, false, false, false}, // unknown
	} {
		for role, want := range map[Role]bool{Releases: c.releases, Heads: c.heads, Halts: c.halts} {
			err := d.Allows(public(c.signer), role)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrUntrusted) {
				t.Errorf("key %d, role %d: %v", c.signer, role, err)
			}
		}
	}
	if d.Find(public(3)) != &d.Keys[2] || d.Find(public(5)) != nil {
		t.Error("Find found another key")
	}
}

func TestDocRoundTripAndRefuses(t *testing.T) {
	b, err := doc().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeDoc(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(doc(), got, equal...); d != "" {
		t.Error(d)
	}
	for name, change := range map[string]func(*Doc){
		"a key twice":              func(d *Doc) { d.Keys[1].Public = d.Keys[0].Public },
		"a status not known":       func(d *Doc) { d.Keys[0].Status = Revoked + 1 },
		"no role":                  func(d *Doc) { d.Keys[0].Roles = 0 },
		"a role not known":         func(d *Doc) { d.Keys[0].Roles = AllRoles + 1 },
		"a time before time began": func(d *Doc) { d.Keys[0].Since = -1 },
		"too many keys": func(d *Doc) {
			for i := range MaxKeys {
				d.Keys = append(d.Keys, Key{Public: Public{1, byte(i >> 8), byte(i)}, Roles: 1})
			}
		},
	} {
		d := doc()
		change(d)
		if _, err := d.Encode(); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		b, err := frame.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeDoc(b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut short": b[:len(b)-1], "too long": make([]byte, MaxDoc+1)} {
		if _, err := DecodeDoc(b); !errors.Is(err, frame.ErrDamaged) || name == "too long" && !strings.Contains(err.Error(), fmt.Sprint(MaxDoc+1)) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestHeadRoundTripAndRefuses(t *testing.T) {
	want := &Head{Release: ReleaseDigest(digest.Of([]byte("r"))), Expires: 1_700_000_000}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeHead(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, equal...); d != "" {
		t.Error(d)
	}
	for name, h := range map[string]Head{"no release": {Expires: 1}, "no end": {Release: want.Release}, "an end before time began": {Release: want.Release, Expires: -1}} {
		if _, err := h.Encode(); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		b, err := frame.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeHead(b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut short": b[:len(b)-1], "too long": make([]byte, MaxHead+1)} {
		if _, err := DecodeHead(b); !errors.Is(err, frame.ErrDamaged) || name == "too long" && !strings.Contains(err.Error(), fmt.Sprint(MaxHead+1)) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(doc().Keys[1])
	if err != nil || !strings.Contains(string(b), `"status":"retired"`) || !strings.Contains(string(b), public(2).String()) {
		t.Errorf("%s, %v", b, err)
	}
	if s := Status(9).String(); s != "revoked" {
		t.Errorf("a status that is not known is %q", s)
	}
	var p Public
	if err := p.UnmarshalText([]byte(public(2).String())); err != nil || p != public(2) {
		t.Errorf("%s, %v", p, err)
	}
	for _, s := range []string{"", "12", strings.Repeat("g", 64)} {
		if p.UnmarshalText([]byte(s)) == nil {
			t.Errorf("%q was read as a key", s)
		}
	}
	if s := (RepoID{0xab}).String(); s != "ab"+strings.Repeat("0", 30) {
		t.Errorf("RepoID = %q", s)
	}
}

func TestKeyFiles(t *testing.T) {
	secret, pub := EncodeSecret("root", key(1)), EncodePublic("root", public(1))
	for _, b := range [][]byte{secret, bytes.TrimSpace(secret), append([]byte("\n "), secret...), bytes.ReplaceAll(secret, []byte("\n"), []byte("\r\n"))} {
		if k, err := ParseSecret("root", b); err != nil || !k.Equal(key(1)) {
			t.Errorf("%q: %v", b, err)
		}
	}
	for _, b := range [][]byte{pub, []byte(public(1).String()), []byte(" " + strings.ToUpper(public(1).String()) + "\n")} {
		if p, err := ParsePublic("root", b); err != nil || p != public(1) {
			t.Errorf("%q: %s, %v", b, p, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a public key": pub, "another use": EncodeSecret("release", key(1)), "cut short": secret[:len(secret)-5],
		"longer": append(bytes.TrimSpace(secret), 'A'), "no use": []byte("nightferry-secret-1 AAAA"), "no first word": bytes.TrimPrefix(secret, []byte(secretPrefix)), "a newer file": bytes.Replace(secret, []byte("-1 "), []byte("-2 "), 1),
	} {
		k, err := ParseSecret("root", b)
		if err == nil || k != nil {
			t.Errorf("%s: was read", name)
		} else if seed := strings.Fields(string(secret))[2]; strings.Contains(err.Error(), seed[:8]) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "a secret key": secret, "another use": EncodePublic("release", public(1)), "no hex": []byte(strings.Repeat("g", 64))} {
		if p, err := ParsePublic("root", b); err == nil {
			t.Errorf("%s: read as %s", name, p)
		}
	}
}
