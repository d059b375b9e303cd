package bus

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait; only failing tests wait that long.
const patience = time.Minute

// coreHost is a name that only the proxies of the tests can resolve.
const coreHost = "core.nightferry.test"

// world is the Core's side: authority, certificates, a real server and its log.
type world struct {
	t       *testing.T
	ca      *CA
	seeds   Seeds
	domains map[string][][]byte
	revoked []string
	server  *Server
	core    *site // connected within the process

	mu      sync.Mutex
	cert    *tls.Certificate
	lines   []string
	refused chan string
	shown   chan *Grant // one for each of refused
	secrets []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, domains: map[string][][]byte{}, refused: make(chan string, 1000), shown: make(chan *Grant, 1000)}
	var err error
	if w.ca, err = NewCA("test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if w.seeds, err = NewSeeds(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"alpha", "beta"} {
		w.domains[d] = [][]byte{w.domainSeed()}
	}
	w.secrets = append(w.secrets, string(w.seeds.Operator), string(w.seeds.Enrol), string(w.seeds.Core))
	w.certificate(time.Now(), time.Hour, "127.0.0.1", coreHost)
	w.start("127.0.0.1:0", "127.0.0.1:0")
	t.Cleanup(w.end) // after all clients are closed
	w.core = w.dial(w.coreOptions())
	return w
}

func (w *world) start(addr, ws string) {
	w.t.Helper()
	server, err := Start(ServerOptions{
		Name: "test", Addr: addr, WebSocketAddr: ws, Authority: w.authority(),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.cert, nil
		},
		Log: func(level Level, text string) {
			w.note(text)
			if level == Refused {
				w.refused <- text
			}
		},
		Refused: func(_ string, g *Grant) { w.shown <- g },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = server
}

// end fails if a log line, event or error contained a secret.
func (w *world) end() {
	w.server.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		for _, s := range w.secrets {
			if strings.Contains(line, s) {
				w.t.Errorf("a secret was told: %s", line)
			}
		}
	}
}

func (w *world) note(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, text)
}

func (w *world) secret(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, s)
}

func (w *world) domainSeed() []byte {
	seed, err := NewDomainSeed()
	if err != nil {
		w.t.Fatal(err)
	}
	w.secret(string(seed))
	return seed
}

func (w *world) certificate(now time.Time, life time.Duration, hosts ...string) {
	w.t.Helper()
	chain, key, err := w.ca.Server(hosts, now, life)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cert = &pair
}

func (w *world) authority() *Authority {
	w.t.Helper()
	a, err := OpenAuthority(AuthorityOptions{w.seeds, w.domains, w.revoked})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// update puts the changed domains and revocations into force.
func (w *world) update() {
	w.t.Helper()
	if err := w.server.Update(w.authority()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) identity() (seed []byte, public string) {
	w.t.Helper()
	seed, public, err := NewIdentity()
	if err != nil {
		w.t.Fatal(err)
	}
	w.secret(string(seed))
	return seed, public
}

// site is a client with its events.
type site struct {
	*Client
	t      *testing.T
	public string
	events chan Event
}

// options returns the options of a client with that identity, over TLS.
func (w *world) options(seed []byte, token string) ClientOptions {
	w.secret(token)
	return ClientOptions{
		URLs: []string{"tls://" + w.server.Addr()}, Pins: []Pin{w.ca.Fingerprint()}, Seed: seed,
		JWT: func() (string, error) { return token, nil }, Name: "test", MaxBackoff: 20 * time.Millisecond,
	}
}

func (w *world) siteOptions(domain, name string) (ClientOptions, string) {
	w.t.Helper()
	seed, public := w.identity()
	token, err := w.authority().User(domain, name, public, time.Hour, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return w.options(seed, token), public
}

func (w *world) enrolOptions(token string) ClientOptions {
	w.t.Helper()
	seed, public := w.identity()
	j, err := w.authority().Enrol(token, public, time.Hour, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return w.options(seed, j)
}

func (w *world) coreOptions() ClientOptions {
	w.t.Helper()
	seed, public := w.identity()
	token, err := w.authority().Core(public, time.Hour, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.options(seed, token)
	o.URLs, o.Pins, o.Server = nil, nil, w.server
	return o
}

func (w *world) try(o ClientOptions) (*site, error) {
	s := &site{t: w.t, events: make(chan Event, 10000)}
	o.OnEvent = func(e Event) {
		w.note(fmt.Sprintf("%v %s %v", e.Kind, e.URL, e.Err))
		s.events <- e
	}
	var err error
	s.Client, err = Dial(w.t.Context(), o)
	w.note(fmt.Sprint(err))
	return s, err
}

func (w *world) dial(o ClientOptions) *site {
	w.t.Helper()
	s, err := w.try(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

func (w *world) site(domain, name string) *site {
	w.t.Helper()
	o, public := w.siteOptions(domain, name)
	s := w.dial(o)
	s.public = public
	return s
}

// next waits for the next event of that kind and returns it.
func (s *site) next(kind EventKind) Event {
	s.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case e := <-s.events:
			if e.Kind == kind {
				return e
			}
		case <-limit:
			s.t.Fatalf("no event %q within %v", kind, patience)
		}
	}
}

// calm fails if the client has had any event but Connected.
func (s *site) calm() {
	s.t.Helper()
	if err := s.Flush(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	for {
		select {
		case e := <-s.events:
			if e.Kind != Connected {
				s.t.Errorf("it was troubled: %v %v", e.Kind, e.Err)
			}
		default:
			return
		}
	}
}

// hear subscribes to a subject and returns the messages.
func (s *site) hear(subject string) <-chan string {
	s.t.Helper()
	heard := make(chan string, 1000)
	if err := s.Subscribe(subject, func(subject string, data []byte) { heard <- subject + " " + string(data) }); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return heard
}

func (s *site) say(subject, text string) {
	s.t.Helper()
	if err := s.Publish(subject, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came: %s", what)
	}
	panic("unreachable")
}
