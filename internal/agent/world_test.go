package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// patience bounds every wait; nothing waits that long unless it fails.
const patience = 60 * time.Second

var here = wire.Address{Domain: "emea", Site: "lyon-1"}

// world is a Core that speaks wire over a real bus, with a repository on a real
// S3 server. It does what the Core does, and nothing that it decides.
type world struct {
	t         *testing.T
	ca        *bus.CA
	authority *bus.Authority
	server    *bus.Server
	client    *bus.Client
	s3        s3test.Bucket
	store     bucket.Store
	repo      *repo.Repo
	root, key ed25519.PrivateKey
	src       string
	caches    *durable.Root
	site      trust.Public

	mu         sync.Mutex
	revision   uint64
	state      wire.State
	events     []wire.Event // by sequence from 1 on
	from       string       // the generation of the last of them
	before     uint64       // those of earlier generations
	twice      int          // reports that came again
	deaf       bool         // does not acknowledge
	dropped    map[wire.EventKind]int
	hellos     int
	beats      int
	stopped    []wire.Stopped
	unanswered bool          // the Core does not acknowledge what is stopped
	progress   wire.Progress // what was told last
	mute       bool          // hears nothing, as a Core that is away
	asks       [][]string
	lend       func(key, raw string) string // changes URLs
	nonces     map[trust.Public][]byte
	used       bool
	changed    chan struct{}
}

func (w *world) try(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newWorld(t *testing.T, faults ...s3test.Fault) *world {
	t.Helper()
	w := &world{t: t, changed: make(chan struct{}, 1), dropped: map[wire.EventKind]int{}, nonces: map[trust.Public][]byte{}, src: t.TempDir()}
	var err error
	w.ca, err = bus.NewCA("test", time.Now())
	w.try(err)
	seeds, err := bus.NewSeeds()
	w.try(err)
	domain, err := bus.NewDomainSeed()
	w.try(err)
	w.authority, err = bus.OpenAuthority(bus.AuthorityOptions{Seeds: seeds, Domains: map[string][][]byte{here.Domain: {domain}}})
	w.try(err)
	chain, key, err := w.ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	w.try(err)
	cert, err := tls.X509KeyPair(chain, key)
	w.try(err)
	w.server, err = bus.Start(bus.ServerOptions{Name: "test", Addr: "127.0.0.1:0", Authority: w.authority,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }})
	w.try(err)
	t.Cleanup(w.server.Close)

	w.s3 = s3test.S3(t)
	if len(faults) > 0 {
		w.s3, _ = s3test.Through(t, w.s3, faults...)
	}
	w.store = w.s3.Open(t)
	w.root, w.key = ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	_, err = repo.Init(t.Context(), w.store, repo.InitOptions{Root: w.root, Release: w.key, Now: time.Now()})
	w.try(err)
	w.repo, err = repo.Open(t.Context(), w.store, repo.Options{Now: time.Now})
	w.try(err)
	w.caches, err = durable.Open(t.TempDir(), durable.Options{})
	w.try(err)
	t.Cleanup(func() { _ = w.caches.Close() })
	u, err := url.Parse(w.s3.Endpoint)
	w.try(err)
	w.state = wire.State{Store: u.Scheme + "://" + u.Host, Beat: 60}

	seed, public, err := bus.NewIdentity()
	w.try(err)
	jwt, err := w.authority.Core(public, time.Hour, time.Now())
	w.try(err)
	w.client, err = bus.Dial(t.Context(), bus.ClientOptions{Server: w.server, Seed: seed, JWT: func() (string, error) { return jwt, nil }})
	w.try(err)
	t.Cleanup(w.client.Close)
	w.try(w.client.Subscribe(wire.AllUp, w.hear))
	return w
}

// enrolled makes a site's state directory, as Enrol does.
func (w *world) enrolled(allow ...string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	_, err := Enrol(w.t.Context(), w.token("tok1"), EnrolOptions{StateDir: dir, Allow: allow, Version: "test", Now: time.Now, Timeout: 10 * time.Second})
	w.try(err)
	return dir
}

func (w *world) token(id string) string {
	w.t.Helper()
	raw := [32]byte([]byte("token secret of 32 bytes, tok1.."))
	_, public, err := bus.IdentityOf(raw)
	w.try(err)
	jwt, err := w.authority.Enrol(id, public, time.Hour, time.Now())
	w.try(err)
	t := wire.Token{Core: []string{"tls://" + w.server.Addr()}, CA: digest.Digest(w.ca.Fingerprint()), Repo: w.repo.ID(), Root: repo.PublicOf(w.root),
		Domain: here.Domain, Site: here.Site, ID: id, Seed: raw[:], JWT: jwt, Expires: time.Now().Add(time.Hour).Unix()}
	text, err := t.Text()
	w.try(err)
	return text
}

// publish makes a release of files and wants it at the target.
func (w *world) publish(files map[string]string, target string) {
	w.t.Helper()
	w.try(os.RemoveAll(w.src))
	for name, content := range files {
		path := filepath.Join(w.src, filepath.FromSlash(name))
		w.try(os.MkdirAll(filepath.Dir(path), 0o755))
		w.try(os.WriteFile(path, []byte(content), 0o644))
		w.try(os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 0)))
	}
	w.release(target)
}

// release makes a release of what lies in the source, and wants it at the target.
func (w *world) release(target string) {
	w.t.Helper()
	r, err := repo.Open(w.t.Context(), w.store, repo.Options{Now: time.Now})
	w.try(err)
	_, err = push.Run(w.t.Context(), r, w.src, push.Options{Channel: "package", Key: w.key, State: w.caches, AllowDeletes: true, Now: time.Now})
	w.try(err)
	h, err := r.Head(w.t.Context(), "package")
	w.try(err)
	w.want(func(s *wire.State) {
		var start uint64
		if len(s.Desired) > 0 {
			start = s.Desired[0].Start
		}
		s.Desired = []wire.Desired{{Channel: "package", Number: h.Number, Release: h.Release, Target: target, Nonce: []byte("nonce of 16 byte"), Start: start}}
	})
}

// want changes the state and tells it.
func (w *world) want(change func(*wire.State)) {
	w.mu.Lock()
	change(&w.state)
	w.revision++
	w.mu.Unlock()
	w.tell()
}

func (w *world) tell() {
	w.mu.Lock()
	w.state.At = time.Now().UnixMilli()
	s, revision := w.state, w.revision
	s.Desired = slices.Clone(s.Desired) // a test may change the next state while this one is being encoded
	w.mu.Unlock()
	w.say(here, wire.VerbState, revision, &s)
}

func (w *world) sign(to wire.Address, verb string, number uint64, v any) []byte {
	msg, err := wire.Sign(w.key, w.repo.ID(), to, verb, number, v)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	b, err := (&wire.Down{Trust: w.repo.Memory().TrustDoc, Message: msg}).Encode()
	if err != nil {
		w.t.Error(err)
	}
	return b
}

func (w *world) say(to wire.Address, verb string, number uint64, v any) {
	err := w.client.Publish(to.Down(verb), w.sign(to, verb, number, v))
	if errors.Is(err, bus.ErrAway) && w.t.Context().Err() != nil {
		return // what was heard as the test ended needs no answer
	}
	if err != nil {
		w.t.Error(err)
	}
}

// hear is what the Core does with what a site says.
func (w *world) hear(subject string, data []byte) {
	from, verb, err := wire.ParseUp(subject)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.mu.Lock()
	mute := w.mute
	w.mu.Unlock()
	if mute {
		return
	}
	open := func(v any) bool {
		by := wire.By(w.site)
		if from.Domain == wire.EnrolDomain {
			by = func(p trust.Public) error { w.site = p; return nil }
		}
		if _, err := wire.Open(data, w.repo.ID(), from, verb, by, v); err != nil {
			w.t.Errorf("%s says: %v", from, err)
			return false
		}
		return true
	}
	switch verb {
	case wire.VerbHello:
		if !open(new(wire.Hello)) {
			return
		}
		w.mu.Lock()
		w.hellos++
		known := w.revision > 0
		w.mu.Unlock()
		if known {
			w.tell()
		}
	case wire.VerbBeat:
		if open(new(wire.Beat)) {
			w.mu.Lock()
			w.beats++
			known := w.revision > 0
			w.mu.Unlock()
			if known {
				w.tell() // as the Core does: an agent that hears nothing while content moves asks the store
			}
		}
	case wire.VerbStopped:
		var s wire.Stopped
		if open(&s) {
			w.mu.Lock()
			w.stopped = append(w.stopped, s)
			unanswered := w.unanswered
			w.mu.Unlock()
			if !unanswered {
				w.say(here, wire.VerbConfirmed, 0, &wire.Confirmed{Number: s.Number})
			}
		}
	case wire.VerbProgress:
		var p wire.Progress
		if open(&p) {
			w.mu.Lock()
			w.progress = p
			w.mu.Unlock()
		}
	case wire.VerbReport:
		var r wire.Report
		if open(&r) {
			w.commit(&r)
		}
	case wire.VerbAsk:
		var q wire.Ask
		if open(&q) {
			w.answer(&q)
		}
	case wire.VerbChallenge, wire.VerbEnrol:
		w.enrol(from, verb, open)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *world) commit(r *wire.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf {
		for _, e := range r.Events {
			w.dropped[e.Kind]++
		}
		return
	}
	if w.from != string(r.Generation) {
		w.from, w.before = string(r.Generation), uint64(len(w.events))
	}
	have := uint64(len(w.events)) - w.before
	if r.First > have+1 {
		w.say(here, wire.VerbAck, have, &wire.Ack{Generation: r.Generation, Want: have + 1})
		return
	}
	for i, e := range r.Events {
		if r.First+uint64(i) <= have {
			w.twice++
			continue
		}
		w.events = append(w.events, e)
	}
	w.say(here, wire.VerbAck, uint64(len(w.events))-w.before, &wire.Ack{Generation: r.Generation})
}

func (w *world) answer(q *wire.Ask) {
	out := wire.URLs{ID: q.ID, Until: time.Now().Add(time.Hour).Unix()}
	w.mu.Lock()
	w.asks = append(w.asks, q.Keys)
	change := w.lend
	w.mu.Unlock()
	for _, key := range q.Keys {
		body, _, err := w.store.Get(context.Background(), key, 0, 1)
		if err == nil {
			err = body.Close()
		}
		if errors.Is(err, fs.ErrNotExist) {
			out.Refused = append(out.Refused, wire.Refused{Key: key, Absent: true})
			continue
		}
		if err != nil {
			return // the site asks again
		}
		raw, _, err := w.store.(bucket.Presigner).PresignGet(context.Background(), key, time.Now(), time.Hour)
		if err != nil {
			w.t.Error(err)
		}
		if change != nil {
			raw = change(key, raw)
		}
		out.Lent = append(out.Lent, wire.URL{Key: key, URL: raw})
	}
	for n := range uint64(wire.MaxNext) {
		key := repo.TrustKey(w.repo.Memory().Trust + 1 + n)
		raw, _, err := w.store.(bucket.Presigner).PresignGet(context.Background(), key, time.Now(), time.Hour)
		if err != nil {
			w.t.Error(err)
		}
		out.Next = append(out.Next, wire.URL{Key: key, URL: raw})
	}
	w.say(here, wire.VerbURLs, 0, &out)
}

func (w *world) enrol(from wire.Address, verb string, open func(any) bool) {
	refuse := func(code, why string) {
		w.say(from, wire.VerbRefuse, 0, &wire.Refusal{Of: verb, Code: code, Why: why})
	}
	if verb == wire.VerbChallenge {
		var c wire.Challenge
		if open(&c) && c.Public == w.site {
			w.nonces[c.Public] = []byte("a nonce of thirty-two bytes.....")
			w.say(from, wire.VerbNonce, 0, &wire.Nonce{Nonce: w.nonces[c.Public]})
		}
		return
	}
	var e wire.Enrol
	switch {
	case !open(&e):
	case w.used:
		refuse("used", "the token was used already")
	case string(e.Nonce) != string(w.nonces[w.site]) || !e.Proves(w.site):
		refuse("forged", "the proof is wrong")
	default:
		w.used = true
		public, err := bus.PublicText(ed25519.PublicKey(w.site[:]))
		if err != nil {
			w.t.Error(err)
		}
		jwt, err := w.authority.User(here.Domain, here.Site, public, time.Hour, time.Now())
		if err != nil {
			w.t.Error(err)
		}
		w.say(from, wire.VerbGrant, 0, &wire.Grant{JWT: jwt, Core: []string{"tls://" + w.server.Addr()}, Store: w.state.Store, Region: "west"})
	}
}

// await waits until ok, which is called with w.mu held.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	limit := time.After(patience)
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.changed:
		case <-limit:
			w.t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// twoBeats waits until what is due by now would have been done.
func (w *world) twoBeats() {
	w.t.Helper()
	beats := -1
	w.await("two beats", func() bool {
		if beats < 0 {
			beats = w.beats
		}
		return w.beats >= beats+2
	})
}

// finished returns how the n-th run (from 0) ended, or nil.
func (w *world) finished(n int) *wire.Finished {
	for _, e := range w.events {
		if e.Kind != wire.FinishedEvent {
			continue
		}
		if n--; n < 0 {
			f := new(wire.Finished)
			if err := wire.Decode(e.Body, f); err != nil {
				w.t.Error(err)
			}
			return f
		}
	}
	return nil
}

// problems returns the kinds that are open.
func (w *world) problems() map[string]string {
	open := map[string]string{}
	for _, e := range w.events {
		if e.Kind != wire.ProblemEvent {
			continue
		}
		var p wire.Problem
		if err := wire.Decode(e.Body, &p); err != nil {
			w.t.Error(err)
		}
		if p.Resolved {
			delete(open, p.Kind)
		} else {
			open[p.Kind] = p.Text
		}
	}
	return open
}

// had reports whether the site has ever told a problem of that kind: one that is
// over at once may come in the same report as its end.
func (w *world) had(kind string) bool {
	return slices.ContainsFunc(w.events, func(e wire.Event) bool {
		var p wire.Problem
		return e.Kind == wire.ProblemEvent && wire.Decode(e.Body, &p) == nil && p.Kind == kind && !p.Resolved
	})
}

// daemon is an agent in this process.
type daemon struct {
	w    *world
	stop context.CancelFunc
	done chan error
}

func (w *world) start(dir string, change func(*Options)) *daemon {
	w.t.Helper()
	o := options(dir, w.t.Logf)
	if change != nil {
		change(&o)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	d := &daemon{w: w, stop: stop, done: make(chan error, 1)}
	go func() { d.done <- Run(ctx, o) }()
	w.t.Cleanup(d.end)
	return d
}

func options(dir string, logf func(string, ...any)) Options {
	return Options{StateDir: dir, Version: "test", Now: time.Now, Retry: 50 * time.Millisecond, AckWait: 500 * time.Millisecond, ReportRate: 10 << 20, Spread: 50 * time.Millisecond,
		Log: func(n Note) { logf("%d %s %s %v", n.Level, n.Channel, n.Text, n.Err) }}
}

// end stops it, as a service is stopped, and waits.
func (d *daemon) end() {
	if d.done == nil {
		return
	}
	d.stop()
	if err := <-d.done; err != nil && !errors.Is(err, context.Canceled) {
		d.w.t.Errorf("the agent ends with %v", err)
	}
	d.done = nil
}

func tree(n int, version string) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("d%d/f%03d.inf", i%7, i)] = fmt.Sprintf("file %d of %s", i, version)
	}
	return files
}

// same checks that a folder holds exactly files.
func (w *world) same(dir string, files map[string]string) {
	w.t.Helper()
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil || string(got) != want {
			w.t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}
