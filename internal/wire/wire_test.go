package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/policy"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(n byte) (p trust.Public) {
	copy(p[:], key(n).Public().(ed25519.PublicKey))
	return p
}

var (
	here = Address{Domain: "emea", Site: "lyon-1"}
	repo = trust.RepoID{5}
)

// message is an example of each verb, with an empty value to decode into.
type message struct {
	verb string
	v    any
	into any
}

func messages() []message {
	d := digest.Of([]byte("release"))
	return []message{
		{VerbHello, &Hello{Generation: []byte{1}, Version: "1", System: "linux/amd64", At: 2, StoreClock: -3, Trust: 4, Revision: 5, Epoch: 6,
			Holds: []Held{{Channel: "package", Number: 7, Release: trust.ReleaseDigest(d), Verified: 8, Obeyed: 9}}, Spooled: 7, Instance: []byte{9}, Machine: "lyon (10.0.0.1)", Lineage: []byte{3}, Starts: 2, Started: []byte{9, 8}}, &Hello{}},
		{VerbBeat, &Beat{At: 1, StoreClock: 2, Trust: 3, Revision: 4, Epoch: 5, Holds: []Held{{Channel: "package", Number: 7, Release: trust.ReleaseDigest(d), Verified: 8, Obeyed: 9}}, Spooled: 6, Instance: []byte{9}, Waits: []Wait{{Channel: "package", Why: WhyWindow, Until: 10, Text: "t"}}}, &Beat{}},
		{VerbProgress, &Progress{Run: []byte{9}, Channel: "package", Progress: runs.Progress{Phase: "stage", FilesDone: 1, FilesTotal: 2, BytesDone: 3, BytesTotal: 4, BytesWire: 5}}, &Progress{}},
		{VerbReport, &Report{Generation: []byte{1}, First: 3, Events: []Event{{Run: []byte{9}, Channel: "package", At: 5, Kind: FinishedEvent, Body: []byte{0x80}}}}, &Report{}},
		{VerbAsk, &Ask{ID: 7, Keys: []string{"head", "packs/ab"}}, &Ask{}},
		{VerbRenew, &Renew{At: 1}, &Renew{}},
		{VerbStopped, &Stopped{Number: 3, Epoch: 7, Orders: []Stop{{Order: halt.ID{7}, Heard: 1, At: 2, Bytes: 3}, {Heard: 4, At: 5, By: "root@lyon", Reason: "disk", Ago: 6}}, Object: []byte{}, Instance: []byte{9}}, &Stopped{}},
		{VerbChallenge, &Challenge{Public: public(3)}, &Challenge{}},
		{VerbEnrol, &Enrol{Nonce: []byte{1}, Token: public(4), Proof: []byte{2}, Box: []byte{3}, Version: "1", System: "s"}, &Enrol{}},
		{VerbState, &State{At: 1, Store: "https://s3.example.com", Beat: 60, Rate: 5, Halt: []byte{1}, Zone: "Asia/Tokyo", Where: []int64{34_690_000, -135_500_000}, Rates: "06:00-20:00 0", Limit: "else 5B", LimitUntil: 9, Rehearsal: []int64{1, 2, 720}, Region: "emea", Core: []string{"tls://core:4222"}, Withheld: []string{"image"},
			Desired: []Desired{{Channel: "package", Number: 3, Release: trust.ReleaseDigest(d), Target: "/srv/p", Nonce: []byte{7}, Start: 2, Rehash: true, Now: true, Bytes: 8,
				Former: Former{Filled: true, Number: 2, Release: trust.ReleaseDigest(d), Place: Place{Target: "/srv/p", Volume: "/srv", Machine: []byte{6}}},
				Policy: policy.Policy{Rate: 1, Windows: "mon-fri 20:00-06:00", Priority: -1, Partial: true, Ignore: []string{"*.tmp", "own/"}, Scrub: time.Hour, ScrubRate: 4}}}}, &State{}},
		{VerbAck, &Ack{Generation: []byte{1}, Want: 2, Full: true}, &Ack{}},
		{VerbConfirmed, &Confirmed{Number: 3, Want: true}, &Confirmed{}},
		{VerbURLs, &URLs{ID: 7, Until: 9, Lent: []URL{{Key: "k", URL: "https://h/k?s"}}, Refused: []Refused{{Key: "x", Absent: true, Why: "no"}}, Next: []URL{{Key: "trust/2", URL: "https://h/trust/2?s"}}}, &URLs{}},
		{VerbRenewed, &Renewed{JWT: "j"}, &Renewed{}},
		{VerbNonce, &Nonce{Nonce: []byte{5}}, &Nonce{}},
		{VerbGrant, &Grant{JWT: "j", Core: []string{"tls://core:4222"}, Store: "https://h", Region: "emea", Sealed: []byte{1}}, &Grant{}},
		{VerbRefuse, &Refusal{Of: VerbEnrol, Code: "used", Why: "ask for another"}, &Refusal{}},
		{verbAttest, &Attestation{Channel: "package", Nonce: []byte{1}, Release: trust.ReleaseDigest(d), Tree: d, Files: 1, Bytes: 2, ReadFiles: 1, ReadBytes: 2, OldestRead: 3, At: 4}, &Attestation{}},
	}
}

// TestGolden opens messages that key 01…01 signed in protocol version 5, and signs them again. Once a version is
// released, its files never change; new ones may be added.
func TestGolden(t *testing.T) {
	for _, m := range messages() {
		name := filepath.Join("testdata", "golden", m.verb+".hex")
		got, err := Sign(key(1), repo, here, m.verb, 42, m.v)
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("NIGHTFERRY_GOLDEN") == "write" { // for a new verb
			if err := os.WriteFile(name, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is written as %x, was %x", m.verb, got, want)
		}
		s, err := Open(want, repo, here, m.verb, By(public(1)), m.into)
		if err != nil || s.Number != 42 {
			t.Fatalf("%s: number %d, %v", m.verb, s.Number, err)
		}
		if diff := cmp.Diff(m.v, m.into, exported); diff != "" {
			t.Errorf("%s: %s", m.verb, diff)
		}
	}
}

// TestOpenRefuses changes one property of a message at a time: each change must be refused.
func TestOpenRefuses(t *testing.T) {
	good, err := Sign(key(1), repo, here, VerbState, 42, &State{At: 1})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-80] ^= 1
	newer := bytes.Clone(good)
	newer[7] = Version + 1
	for name, c := range map[string]struct {
		b    []byte
		repo trust.RepoID
		to   Address
		verb string
		by   trust.Public
		want error
	}{
		"another site":       {good, repo, Address{"emea", "lyon-2"}, VerbState, public(1), trust.ErrUntrusted},
		"another domain":     {good, repo, Address{"apac", "lyon-1"}, VerbState, public(1), trust.ErrUntrusted},
		"another repository": {good, trust.RepoID{6}, here, VerbState, public(1), trust.ErrUntrusted},
		"another verb":       {good, repo, here, VerbAck, public(1), frame.ErrDamaged},
		"another key":        {good, repo, here, VerbState, public(2), trust.ErrUntrusted},
		"a flipped bit":      {flipped, repo, here, VerbState, public(1), nil},
		"cut off":            {good[:len(good)-1], repo, here, VerbState, public(1), frame.ErrDamaged},
		"too long":           {append(bytes.Clone(good), make([]byte, MaxMessage)...), repo, here, VerbState, public(1), nil},
		"an unknown verb":    {good, repo, here, "sing", public(1), ErrSubject},
	} {
		var s State
		_, err := Open(c.b, c.repo, c.to, c.verb, By(c.by), &s)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if s.At != 0 {
			t.Errorf("%s: it was decoded", name)
		}
	}
	var n *frame.NewerError
	if _, err := Open(newer, repo, here, VerbState, By(public(1)), &State{}); !errors.As(err, &n) || n.Version != Version+1 || n.Supported != Version {
		t.Errorf("a newer protocol: %v", err)
	}
}

// doc signs a trust document with the root key 9.
func doc(t testing.TB, root byte, number uint64, control byte) []byte {
	t.Helper()
	d := &trust.Doc{Keys: []trust.Key{{Public: public(control), Roles: trust.Control, Since: 1}}}
	payload, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.Sign(key(root), trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: repo, Number: number}, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestChainFollowsTheRootOnly(t *testing.T) {
	c := &Chain{Repo: repo, Root: public(9)}
	say := func(by byte, object []byte) (bool, error) {
		m, err := Sign(key(by), repo, here, VerbState, 1, &State{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := (&Down{Trust: object, Message: m}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		_, newer, err := c.OpenDown(b, here, VerbState, &State{})
		return newer, err
	}
	for _, step := range []struct {
		name   string
		by     byte
		object []byte
		newer  bool
		bad    bool
	}{
		{"no document was seen", 1, nil, false, true},
		{"a document of another root", 1, doc(t, 8, 1, 1), false, true},
		{"the first", 1, doc(t, 9, 1, 1), true, false},
		{"the same again", 1, doc(t, 9, 1, 1), false, false},
		{"a key that has no role", 2, nil, false, true},
		{"rotated", 2, doc(t, 9, 2, 2), true, false},
		{"the old key", 1, nil, false, true},
		{"the old key with the old document", 1, doc(t, 9, 1, 1), false, true},
	} {
		newer, err := say(step.by, step.object)
		if newer != step.newer || (err != nil) != step.bad || step.bad && !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("%s: newer %t, %v", step.name, newer, err)
		}
	}
	// After a restart, only the document is known.
	again := &Chain{Repo: repo, Root: public(9), Number: 2}
	if _, err := again.Follow(doc(t, 9, 1, 1)); err == nil {
		t.Error("an older document was followed after a restart")
	}
	if _, err := again.Follow(c.Object); err != nil || again.Allow(public(2)) != nil {
		t.Errorf("what was kept is not taken back: %v", err)
	}
}

// TestOutcomesAreSmall checks the WAN traffic per file: 20 000 outcomes of a first pull, signed and compressed.
func TestOutcomesAreSmall(t *testing.T) {
	const files = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	var events []Event
	for at := 0; at < files; at += 2000 {
		all := make([]File, 2000)
		for i := range all {
			// Sizes as in a driver store: mostly small, a few megabytes; an eighth is partly held.
			size := int64(200 + r.IntN(60_000))
			if r.IntN(10) == 0 {
				size = r.Int64N(20 << 20)
			}
			held := int64(0)
			if r.IntN(8) == 0 {
				held = size / 2
			}
			all[i] = File{Outcome: runs.FileAdded, Ordinal: uint64(at + i), Held: held, Fetched: size - held}
			if r.IntN(5) == 0 {
				all[i].Outcome = runs.FileChanged
			}
		}
		body, err := EncodeOutcomes(all)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, Event{Run: make([]byte, 16), Channel: "driver", At: 1, Kind: OutcomesEvent, Body: body})
	}
	b, err := Sign(key(1), repo, here, VerbReport, 1, &Report{Generation: make([]byte, 16), First: 1, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	if per := float64(len(b)) / files; per > 10 {
		t.Errorf("an outcome takes %.1f bytes on the wire", per)
	} else {
		t.Logf("an outcome takes %.2f bytes on the wire", per)
	}
}

func TestBounds(t *testing.T) {
	if _, err := EncodeOutcomes(make([]File, MaxOutcomes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many outcomes: %v", err)
	}
	for _, o := range []File{{}, {Outcome: "lost"}, {Outcome: runs.FileUnchanged}, {Outcome: runs.FileAdded, Held: -1}, {Outcome: runs.FileAdded, Fetched: -1}} {
		if _, err := EncodeOutcomes([]File{o}); err == nil {
			t.Errorf("%+v was encoded", o)
		}
	}
	noise := make([]byte, MaxMessage)
	for i := range noise {
		noise[i] = byte(rand.Int())
	}
	for name, body := range map[string][]byte{"inflated": make([]byte, MaxInflated+1), "message": noise} {
		if _, err := Sign(key(1), repo, here, VerbReport, 1, &Report{Events: []Event{{Body: body}}}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := inflate(VerbReport, deflate(make([]byte, MaxInflated+1<<20))); err == nil {
		t.Error("more was inflated than is allowed")
	}
	// A payload that decompresses to more than the limit is refused before that.
	bomb, err := trust.Sign(key(1), trust.Subject{Kind: "rept", Version: Version, Repo: repo, Scope: here.String()}, deflate(make([]byte, 4*MaxInflated)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bomb, repo, here, VerbReport, By(public(1)), &Report{}); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("a bomb of %d bytes: %v", len(bomb), err)
	}
}

func TestSubjects(t *testing.T) {
	for _, s := range []string{here.Up(VerbHello), here.Down(VerbAck)} {
		a, verb, err := ParseUp(s)
		if strings.HasPrefix(s, "nf.down") {
			a, verb, err = ParseDown(s)
		}
		if err != nil || a != here || verb == "" {
			t.Errorf("%s: %v %s %v", s, a, verb, err)
		}
	}
	for _, s := range []string{"", "nf.up", "nf.up.a.b", "nf.up.a.b.c.d", "nf.down.a.b.c", "nf.up.*.b.c", "nf.up.a.>.c", "nf.up.A.b.c", "nf.up..b.c", "nf.up.-a.b.c", "x.up.a.b.c", "nf.up.a.b." + strings.Repeat("c", 64)} {
		if a, verb, err := ParseUp(s); err == nil {
			t.Errorf("%q is said by %v: %s", s, a, verb)
		}
	}
}

func TestTokenKeepsItsSecret(t *testing.T) {
	tok := &Token{Core: []string{"tls://core:4222"}, Repo: repo, Root: public(9), Domain: "emea", Site: "lyon-1", ID: "t1", Seed: bytes.Repeat([]byte("S"), 32), JWT: "eyJ", Expires: 7}
	text, err := tok.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("  " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tok, got, exported); diff != "" {
		t.Error(diff)
	}
	for i := range text {
		for _, bad := range []string{text[:i], text[:i] + "A" + text[min(i+1, len(text)):], text[:i] + text[i+1:]} {
			if bad == text {
				continue
			}
			newer := (*frame.NewerError)(nil) // the change may be one of the version
			if _, err := ParseToken(bad); !errors.Is(err, ErrToken) && !errors.As(err, &newer) || i > 8 && strings.Contains(err.Error(), text[4:12]) {
				t.Fatalf("cut or changed at %d: %v", i, err)
			}
		}
	}
	for _, shown := range []string{fmt.Sprint(tok), fmt.Sprintf("%v %s", tok, tok)} {
		if strings.Contains(shown, "SSSS") || strings.Contains(shown, "eyJ") {
			t.Errorf("a token shows its secret: %s", shown)
		}
	}
}

func TestProof(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, 32)
	e := Enrol{Nonce: []byte("nonce"), Token: TokenKey(seed), Proof: Prove(seed, []byte("nonce"), public(3))}
	if !e.Proves(public(3)) {
		t.Error("a good proof is refused")
	}
	if e.Proves(public(4)) {
		t.Error("the proof holds for another identity")
	}
	e.Nonce = []byte("other")
	if e.Proves(public(3)) {
		t.Error("the proof holds for another nonce")
	}
}
