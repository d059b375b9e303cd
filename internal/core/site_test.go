package core_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// heard is a message of the Core, still closed.
type heard struct {
	verb string
	data []byte
}

// wireSite speaks the protocol by hand, so that it can also break it.
type wireSite struct {
	w     *world
	at    wire.Address
	token *wire.Token
	seed  []byte
	key   ed25519.PrivateKey
	pin   trust.Public
	grant wire.Grant
	repo  []byte // the repository's key, as granted
	chain *wire.Chain

	client     *bus.Client
	in         chan heard
	mu         sync.Mutex
	asked      uint64
	waiting    map[uint64]chan *wire.URLs
	lost       chan time.Time
	generation []byte
	next       uint64
	instance   []byte               // 16 bytes of this process
	holds      map[string]wire.Held // by channel
}

// refusal is the Core's no.
type refusal struct{ wire.Refusal }

func (r *refusal) Error() string { return r.Code + ": " + r.Why }

// dial connects a user of the bus.
func (w *world) dial(t *wire.Token, jwt string, seed []byte, onEvent func(bus.Event)) (*bus.Client, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return bus.Dial(ctx, bus.ClientOptions{URLs: t.Core, Pins: []bus.Pin{bus.Pin(t.CA)}, JWT: func() (string, error) { return jwt, nil }, Seed: seed, Name: "test", Now: w.right, OnEvent: onEvent, MaxBackoff: 100 * time.Millisecond})
}

// enrol redeems a token with a fresh identity, or the given one.
func (w *world) enrol(text string, seed []byte) (*wireSite, error) {
	w.t.Helper()
	token, err := wire.ParseToken(text)
	if err != nil {
		return nil, err
	}
	if seed == nil {
		if seed, _, err = bus.NewIdentity(); err != nil {
			return nil, err
		}
	}
	s := &wireSite{w: w, seed: seed, token: token, waiting: map[uint64]chan *wire.URLs{}, lost: make(chan time.Time, 8), generation: make([]byte, 16), next: 1, instance: make([]byte, 16), holds: map[string]wire.Held{}}
	rand.Read(s.generation)
	rand.Read(s.instance)
	if s.key, err = bus.Ed25519Of(seed); err != nil {
		return nil, err
	}
	copy(s.pin[:], s.key.Public().(ed25519.PublicKey))
	s.chain = &wire.Chain{Repo: token.Repo, Root: token.Root}
	oneTime, _, err := bus.IdentityOf([32]byte(token.Seed))
	if err != nil {
		return nil, err
	}
	if err := s.connect(token.Address(), token.JWT, oneTime); err != nil {
		return nil, err
	}
	var nonce wire.Nonce
	s.say(wire.VerbChallenge, 0, &wire.Challenge{Public: s.pin})
	if err := s.answer(wire.VerbNonce, &nonce); err != nil {
		return s, err
	}
	box, err := wire.NewBox()
	if err != nil {
		return nil, err
	}
	s.say(wire.VerbEnrol, 0, &wire.Enrol{Nonce: nonce.Nonce, Token: wire.TokenKey(token.Seed), Proof: wire.Prove(token.Seed, nonce.Nonce, s.pin), Box: box.Public(), Version: "test", System: "test/test"})
	if err := s.answer(wire.VerbGrant, &s.grant); err != nil {
		return s, err
	}
	if len(s.grant.Sealed) > 0 {
		if s.repo, err = box.Open(s.grant.Sealed); err != nil {
			return nil, err
		}
	}
	s.client.Close()
	return s, s.connect(wire.Address{Domain: token.Domain, Site: token.Site}, s.grant.JWT, seed)
}

// join makes a token for a configured site and redeems it.
func (w *world) join(site string) *wireSite {
	w.t.Helper()
	t, err := w.core.Enrolment.Token(w.t.Context(), site, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := w.enrol(t.Text, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (s *wireSite) connect(a wire.Address, jwt string, seed []byte) (err error) {
	s.at = a
	s.in = make(chan heard, 256)
	s.client, err = s.w.dial(s.token, jwt, seed, func(e bus.Event) {
		if e.Kind == bus.Lost || e.Kind == bus.Unwelcome {
			select {
			case s.lost <- time.Now():
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	in, ended := s.in, make(chan struct{})
	s.w.t.Cleanup(s.client.Close)
	s.w.t.Cleanup(func() { close(ended) }) // first: Close waits for what nobody reads
	if err := s.client.Subscribe(a.AllDown(), func(subject string, data []byte) {
		_, verb, err := wire.ParseDown(subject)
		if err != nil {
			return
		}
		if verb == wire.VerbURLs {
			s.lent(data)
			return
		}
		select {
		case in <- heard{verb, data}:
		case <-ended:
		}
	}); err != nil {
		return err
	}
	return s.client.Flush(s.w.t.Context())
}

func (s *wireSite) say(verb string, number uint64, v any) {
	s.w.t.Helper()
	b, err := wire.Sign(s.key, s.token.Repo, s.at, verb, number, v)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.raw(verb, b)
}

func (s *wireSite) raw(verb string, b []byte) {
	s.w.t.Helper()
	if err := s.client.Publish(s.at.Up(verb), b); err != nil {
		s.w.t.Fatal(err)
	}
}

// back waits until the site's connection has come back.
func (s *wireSite) back() {
	s.w.t.Helper()
	s.w.until(s.at.Site+" to be connected again", func() bool { return s.client.Flush(s.w.t.Context()) == nil })
}

// connected forgets that the connection was lost before.
func (s *wireSite) connected() {
	s.back()
	for len(s.lost) > 0 {
		<-s.lost
	}
}

// mustBeCut demands that the connection ends, and does not come back. It returns
// when it ended.
func (s *wireSite) mustBeCut() (at time.Time) {
	s.w.t.Helper()
	select {
	case at = <-s.lost:
	case <-time.After(patience):
		s.w.t.Fatalf("%s is still connected", s.at)
	}
	if c, err := s.w.dial(s.token, s.grant.JWT, s.seed, nil); err == nil {
		c.Close()
		s.w.t.Errorf("%s came back", s.at)
	}
	return at
}

// answer waits for a message of the Core and opens it; a refusal is an error.
func (s *wireSite) answer(verb string, v any) error {
	_, err := s.answerNumber(verb, v)
	return err
}

func (s *wireSite) answerNumber(verb string, v any) (uint64, error) {
	s.w.t.Helper()
	end := time.After(patience)
	for {
		select {
		case h := <-s.in:
			if h.verb == wire.VerbRefuse && verb != wire.VerbRefuse {
				r := &refusal{}
				if err := s.openDown(h, &r.Refusal); err != nil {
					return 0, err
				}
				return 0, r
			}
			if h.verb != verb {
				continue
			}
			m, _, err := s.chain.OpenDown(h.data, s.at, h.verb, v)
			return m.Number, err
		case <-end:
			return 0, fmt.Errorf("no %s came from the Core", verb)
		}
	}
}

func (s *wireSite) openDown(h heard, v any) error {
	_, _, err := s.chain.OpenDown(h.data, s.at, h.verb, v)
	return err
}

func (s *wireSite) hello() (*wire.State, uint64) {
	s.w.t.Helper()
	s.say(wire.VerbHello, 0, &wire.Hello{Generation: s.generation, Version: "test", System: "test/test", At: s.w.right().UnixMilli(), Trust: s.chain.Number,
		Instance: s.instance, Machine: hexOf(s.instance), Holds: slices.Collect(maps.Values(s.holds))})
	var st wire.State
	n, err := s.answerNumber(wire.VerbState, &st)
	if err != nil {
		s.w.t.Fatal(err)
	}
	return &st, n
}

// stateOf says hello until the Core states that release of a channel.
func (s *wireSite) stateOf(channel string, number trust.ReleaseNumber) wire.Desired {
	s.w.t.Helper()
	for range 100 {
		st, _ := s.hello()
		for _, d := range st.Desired {
			if d.Channel == channel && d.Number == number {
				return d
			}
		}
	}
	s.w.t.Fatalf("the Core never stated release %d of %s", number, channel)
	return wire.Desired{}
}

func (s *wireSite) lent(data []byte) {
	var u wire.URLs
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, err := s.chain.OpenDown(data, s.at, wire.VerbURLs, &u); err != nil {
		s.w.t.Error(err)
		return
	}
	if ch := s.waiting[u.ID]; ch != nil {
		ch <- &u
	}
}

func (s *wireSite) ask(keys ...string) (*wire.URLs, error) {
	s.mu.Lock()
	s.asked++
	id, ch := s.asked, make(chan *wire.URLs, 1)
	s.waiting[id] = ch
	s.mu.Unlock()
	b, err := wire.Sign(s.key, s.token.Repo, s.at, wire.VerbAsk, 0, &wire.Ask{ID: id, Keys: keys})
	if err == nil {
		err = s.client.Publish(s.at.Up(wire.VerbAsk), b)
	}
	if err != nil {
		return nil, err
	}
	select {
	case u := <-ch:
		return u, nil
	case <-time.After(patience):
		return nil, errors.New("no URLs came from the Core")
	}
}

// store is the bucket as this site sees it.
func (s *wireSite) store() bucket.Store {
	s.w.t.Helper()
	st, err := bucket.OpenLent(bucket.LentOptions{Host: s.grant.Store, Lend: func(ctx context.Context, key, _ string) (string, error) {
		u, err := s.ask(key)
		if err != nil {
			return "", err
		}
		for _, l := range u.Lent {
			return l.URL, nil
		}
		kind, r := bucket.KindDenied, u.Refused[0]
		if r.Absent {
			kind = bucket.KindNotExist
		}
		return "", &bucket.Error{Op: "get", Key: key, Kind: kind, Err: errors.New(r.Why)}
	}})
	if err != nil {
		s.w.t.Fatal(err)
	}
	return st
}

// converge applies what the Core wants and returns the events of the run.
func (s *wireSite) converge(d wire.Desired) (run ledger.RunID, events []wire.Event) {
	s.w.t.Helper()
	rand.Read(run[:])
	var files []apply.Event
	root := s.token.Root
	res, err := apply.Run(s.w.t.Context(), s.store(), d.Target, apply.Options{Channel: d.Channel, Release: d.Number, RootKey: &root, Key: s.repo, Now: time.Now, OnEvent: func(e apply.Event) {
		if e.Kind == apply.FileEvent {
			files = append(files, e)
		}
	}})
	if err != nil {
		s.w.t.Fatal(err)
	}
	ordinals := s.w.ordinals(d)
	var out []wire.File
	for _, f := range files {
		o := wire.File{Outcome: f.Outcome, From: f.From, Held: f.Held, Fetched: f.Fetched}
		if n, ok := ordinals[f.Path]; ok {
			o.Ordinal = n
		} else {
			o.Path = f.Path
		}
		out = append(out, o)
	}
	at := &wire.Attestation{Channel: d.Channel, Nonce: d.Nonce, Release: res.Release, Tree: res.Tree, Files: res.Totals.Files, Bytes: res.Totals.Bytes, At: s.w.right().Unix(), OldestRead: s.w.right().Unix()}
	return run, s.events(run, d, out, &wire.Finished{Verdict: res.Verdict, Totals: runs.Totals{Files: res.Totals.Files, Bytes: res.Totals.Bytes, Counts: res.Counts,
		Fetched: res.BytesFetched, Held: res.BytesHeld, Wire: res.BytesWire}}, at)
}

// events is a run as it is reported.
func (s *wireSite) events(run ledger.RunID, d wire.Desired, out []wire.File, fin *wire.Finished, at *wire.Attestation) []wire.Event {
	s.w.t.Helper()
	var err error
	if at != nil {
		if fin.Attestation, err = wire.SignAttestation(s.key, s.token.Repo, s.at, d.Number, at); err != nil {
			s.w.t.Fatal(err)
		}
		s.holds[d.Channel] = wire.Held{Channel: d.Channel, Number: d.Number, Release: d.Release, Verified: at.At, Obeyed: d.Start}
	}
	var events []wire.Event
	add := func(kind wire.EventKind, body []byte, err error) {
		if err != nil {
			s.w.t.Fatal(err)
		}
		events = append(events, wire.Event{Run: run[:], Channel: d.Channel, At: s.w.right().UnixMilli(), Kind: kind, Body: body})
	}
	body, err := wire.Encode(&wire.Started{Number: d.Number, Release: d.Release, Start: d.Start})
	add(wire.StartedEvent, body, err)
	body, err = wire.EncodeOutcomes(out)
	add(wire.OutcomesEvent, body, err)
	body, err = wire.Encode(fin)
	add(wire.FinishedEvent, body, err)
	return events
}

// report sends events from a sequence and returns what was acknowledged.
func (s *wireSite) report(first uint64, events []wire.Event) (uint64, *wire.Ack, error) {
	s.w.t.Helper()
	s.say(wire.VerbReport, 0, &wire.Report{Generation: s.generation, First: first, Events: events})
	var a wire.Ack
	n, err := s.answerNumber(wire.VerbAck, &a)
	return n, &a, err
}

// deliver reports a run and demands that it is committed. It skips acknowledgements of earlier reports.
func (s *wireSite) deliver(events []wire.Event) {
	s.w.t.Helper()
	n, _, err := s.report(s.next, events)
	for err == nil && n < s.next {
		n, err = s.answerNumber(wire.VerbAck, &wire.Ack{})
	}
	if err != nil {
		s.w.t.Fatal(err)
	}
	if want := s.next + uint64(len(events)) - 1; n != want {
		s.w.t.Fatalf("acknowledged up to %d, want %d", n, want)
	}
	s.next += uint64(len(events))
}

// ordinals numbers the entries of a release, read past the Core.
func (w *world) ordinals(d wire.Desired) map[string]uint64 {
	w.t.Helper()
	r, err := repo.Open(w.t.Context(), w.store, repo.Options{Key: w.repoKey, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	rel, err := r.Release(w.t.Context(), d.Channel, d.Number, d.Release)
	if err != nil {
		w.t.Fatal(err)
	}
	pages := repo.NewMemoryPages()
	if err := r.Manifests(pages).Load(w.t.Context(), r.Index, rel.PageIDs(), repo.FetchOptions{}); err != nil {
		w.t.Fatal(err)
	}
	out := map[string]uint64{}
	next := r.Manifests(pages).Entries(rel)
	for n := uint64(0); ; n++ {
		e, err := next()
		if err != nil {
			w.t.Fatal(err)
		}
		if e == nil {
			return out
		}
		out[e.Path] = n
	}
}

// mustRefuse demands a refusal with that code.
func mustRefuse(t *testing.T, err error, code string) {
	t.Helper()
	r := (*refusal)(nil)
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("got %v, want the refusal %q", err, code)
	}
}

func hexOf(b []byte) string    { return hex.EncodeToString(b) }
func base64Of(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }
