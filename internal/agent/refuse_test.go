package agent

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// orders signs a halt object of an epoch.
func (w *world) orders(key ed25519.PrivateKey, epoch uint64, active ...halt.Order) []byte {
	w.t.Helper()
	payload, err := (&halt.Orders{Active: active}).Encode()
	w.try(err)
	b, err := trust.Sign(key, trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: w.repo.ID(), Number: epoch}, payload)
	w.try(err)
	return b
}

// TestRefusesWhatTheCoreDoesNotSay: a bus that is somebody else's can say
// anything; the site obeys nothing of it.
func TestRefusesWhatTheCoreDoesNotSay(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	good, evil := filepath.Join(base, "good"), filepath.Join(base, "evil")
	w.start(w.enrolled(base), nil)
	w.publish(tree(20, "one"), good)
	w.await("run", func() bool { return w.finished(0) != nil })

	w.mu.Lock()
	s, revision := w.state, w.revision
	w.mu.Unlock()
	s.Desired = []wire.Desired{s.Desired[0]}
	s.Desired[0].Target = evil
	stranger := ed25519.NewKeyFromSeed([]byte("a key that the root never signed"))
	send := func(b []byte, err error) {
		t.Helper()
		w.try(err)
		w.try(w.client.Publish(here.Down(wire.VerbState), b))
	}
	sign := func(key ed25519.PrivateKey, id trust.RepoID, to wire.Address, verb string, n uint64) []byte {
		m, err := wire.Sign(key, id, to, verb, n, &s)
		w.try(err)
		return m
	}
	down := func(m []byte) ([]byte, error) {
		return (&wire.Down{Message: m}).Encode()
	}
	id := w.repo.ID()
	send(down(sign(stranger, id, here, wire.VerbState, revision+1)))
	send(down(sign(w.key, id, wire.Address{Domain: here.Domain, Site: "lyon-2"}, wire.VerbState, revision+1)))
	send(down(sign(w.key, trust.RepoID{9}, here, wire.VerbState, revision+1)))
	send(down(sign(w.key, id, here, wire.VerbURLs, revision+1)))
	flipped := sign(w.key, id, here, wire.VerbState, revision+1)
	flipped[len(flipped)/2] ^= 4
	send(down(flipped))
	send([]byte("nonsense"), nil)
	// A trust document that another root has signed, and which knows the stranger.
	doc := &trust.Doc{Keys: []trust.Key{{Public: repo.PublicOf(stranger), Roles: trust.AllRoles, Since: 1}}}
	payload, err := doc.Encode()
	w.try(err)
	forged, err := trust.Sign(stranger, trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: id, Number: 9}, payload)
	w.try(err)
	send((&wire.Down{Trust: forged, Message: sign(stranger, id, here, wire.VerbState, revision+1)}).Encode())
	// A halt that the stranger has signed, in a state that the Core has.
	s.Halt = w.orders(stranger, 99, halt.Order{ID: halt.ID{99}, Scope: halt.All, Reason: "x", By: "y"})
	// What is old is no forgery, but not obeyed either.
	send(down(sign(w.key, id, here, wire.VerbState, revision-1)))
	w.await("problem", func() bool { return w.had(ProblemControl) })

	// The Core itself is still heard.
	w.publish(tree(21, "two"), good)
	w.await("second run", func() bool { return w.finished(1) != nil })
	w.same(good, tree(21, "two"))
	w.await("end of the problem", func() bool { return w.problems()[ProblemControl] == "" })
	if _, err := os.Lstat(evil); err == nil {
		t.Error("a forged state was obeyed")
	}
}

func TestTargetsOutsideTheAllowList(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "allowed")
	outside := filepath.Join(base, "allowed-not")
	for _, d := range []string{root, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	roots, err := cleanRoots([]string{root + "/"})
	if err != nil {
		t.Fatal(err)
	}
	id := &Identity{Allow: roots, dir: t.TempDir()}
	refused := []string{outside, base, "/", "", "relative", root + "/../allowed-not", root + "/x/../../allowed-not/y", root + "\x00"}
	if info, err := os.Lstat(link); err == nil && info.Mode()&os.ModeSymlink != 0 {
		refused = append(refused, link, filepath.Join(link, "x"))
	} else if runtime.GOOS != "windows" { // Wine 8 says that it made a link, but makes a folder or nothing
		t.Fatalf("no link: %v, %v", info, err)
	}
	for _, bad := range refused {
		if got, err := id.checkAllowed(bad); err == nil {
			t.Errorf("%q is allowed as %q", bad, got)
		}
	}
	for _, good := range []string{root, root + "/", filepath.Join(root, "a", "b")} {
		if got, err := id.checkAllowed(good); err != nil || got != filepath.Clean(good) {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"relative", "/"} {
		if _, err := cleanRoots([]string{bad}); err == nil {
			t.Errorf("%q may be an allowed folder", bad)
		}
	}

	w := newWorld(t)
	w.start(w.enrolled(root), nil)
	w.publish(tree(5, "one"), filepath.Join(outside, "x"))
	w.await("refusal", func() bool { return w.finished(0) != nil })
	w.mu.Lock()
	f := w.finished(0)
	w.mu.Unlock()
	if f.Verdict != runs.Refused || !strings.Contains(f.Error, "allow") {
		t.Errorf("it ends as %s: %s", f.Verdict, f.Error)
	}
	if _, err := os.Lstat(filepath.Join(outside, "x")); err == nil {
		t.Error("something was made outside")
	}
	w.publish(tree(5, "one"), filepath.Join(root, "x"))
	w.await("run", func() bool { f := w.finished(1); return f != nil && f.Verdict == runs.Verified })
}

func TestHaltStopsARunAndResumeGoesOn(t *testing.T) {
	release := make(chan struct{})
	hold := s3test.HangBody(1000, 100, release)
	var on atomic.Bool
	w := newWorld(t, func(next http.Handler) http.Handler {
		held := hold(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if on.Load() && strings.Contains(r.URL.Path, "/packs/") && r.Method == http.MethodGet {
				held.ServeHTTP(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	dir := w.enrolled(base)
	files := map[string]string{"big": strings.Repeat("0123456789", 100_000)}
	on.Store(true)
	d := w.start(dir, nil)
	w.publish(files, filepath.Join(base, "p"))
	w.await("URL of a pack", func() bool {
		for _, keys := range w.asks {
			for _, k := range keys {
				if strings.HasPrefix(k, "packs/") {
					return true
				}
			}
		}
		return false
	})
	w.want(func(s *wire.State) {
		s.Halt = w.orders(w.key, 7, halt.Order{ID: halt.ID{7}, Scope: halt.Site, Value: here.Site, Reason: "test", By: "tester"})
	})
	w.await("halted run", func() bool { return w.finished(0) != nil })
	w.mu.Lock()
	if f := w.finished(0); f.Verdict != runs.Stopped {
		t.Errorf("a halted run ends as %s: %s", f.Verdict, f.Error)
	}
	w.mu.Unlock()
	d.end()
	close(release)
	on.Store(false)
	// Neither a restart nor an older halt object lifts it.
	d = w.start(dir, nil)
	w.want(func(s *wire.State) { s.Halt, s.Beat = w.orders(w.key, 6), 1 })
	w.twoBeats()
	w.mu.Lock()
	if w.finished(1) != nil {
		t.Error("a halted channel ran again after a restart")
	}
	w.mu.Unlock()
	w.want(func(s *wire.State) { s.Halt = w.orders(w.key, 8) })
	w.await("run after the halt", func() bool { return w.finished(1) != nil })
	w.mu.Lock()
	if f := w.finished(1); f.Verdict != "verified" {
		t.Errorf("after the halt: %s: %s", f.Verdict, f.Error)
	}
	w.mu.Unlock()
	d.end()
	w.same(filepath.Join(base, "p"), files)
}

// TestForeignURLs: the agent asks nobody but the enrolled store, whatever it is
// lent.
func TestForeignURLs(t *testing.T) {
	var hits atomic.Int64
	foreign := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer foreign.Close()
	w := newWorld(t)
	w.lend = func(_, raw string) string { return foreign.URL + "/" + raw[strings.Index(raw[8:], "/")+9:] }
	base := t.TempDir()
	var mu sync.Mutex
	var log strings.Builder
	d := w.start(w.enrolled(base), func(o *Options) {
		o.Log = func(n Note) {
			mu.Lock()
			defer mu.Unlock()
			if n.Err != nil {
				log.WriteString(n.Err.Error())
			}
			log.WriteString(n.Text)
		}
	})
	w.publish(tree(3, "one"), filepath.Join(base, "p"))
	w.await("failed run", func() bool { return w.finished(0) != nil })
	d.end()
	if hits.Load() > 0 {
		t.Errorf("another host was asked %d times", hits.Load())
	}
	if s := log.String(); strings.Contains(s, "X-Amz") || strings.Contains(s, "Signature") {
		t.Errorf("a URL is in the log: %s", s)
	}
}

// TestCoreAndStoreGone: both die in the middle, and nothing is lost or said
// twice.
func TestCoreAndStoreGone(t *testing.T) {
	var down atomic.Bool
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if down.Load() {
				s3test.S3Error(rw, http.StatusServiceUnavailable, "ServiceUnavailable", "gone")
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	w.start(w.enrolled(base), nil)
	w.publish(tree(30, "one"), filepath.Join(base, "p"))
	w.await("run", func() bool { return w.finished(0) != nil })
	w.mu.Lock()
	w.lend = func(_, raw string) string { down.Store(true); return raw } // once it begins
	w.mu.Unlock()
	w.publish(tree(31, "two"), filepath.Join(base, "p"))
	w.await("problem", func() bool { return w.problems()[ProblemStore] != "" })
	w.mu.Lock()
	w.deaf, w.lend = true, nil
	w.mu.Unlock()
	down.Store(false)
	limit := time.After(patience)
	for { // what it has is finished, though nobody acknowledges
		if _, err := os.Lstat(filepath.Join(base, "p", "d2", "f030.inf")); err == nil {
			break
		}
		select {
		case <-w.changed:
		case <-limit:
			t.Fatal("the release did not arrive")
		}
	}
	w.mu.Lock()
	w.deaf = false
	w.mu.Unlock()
	w.await("report", func() bool { return w.finished(1) != nil && w.problems()[ProblemStore] == "" })
	w.mu.Lock()
	if f := w.finished(1); f.Verdict != "verified" || f.Added+f.Changed != 31 {
		t.Errorf("%s, %d added, %d changed", f.Verdict, f.Added, f.Changed)
	}
	w.mu.Unlock()
}

// TestReportsAreSentAgain: what the Core has heard and not committed comes
// again, with nothing else to say.
func TestReportsAreSentAgain(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	w.deaf = true
	w.start(w.enrolled(base), nil)
	w.publish(tree(3, "one"), filepath.Join(base, "p"))
	w.await("unacknowledged end", func() bool { return w.dropped[wire.FinishedEvent] > 0 })
	w.mu.Lock()
	w.deaf = false
	w.mu.Unlock()
	w.await("report", func() bool { return w.finished(0) != nil })
}

func TestClocks(t *testing.T) {
	for _, c := range []struct {
		off  time.Duration
		runs bool
	}{{5 * time.Minute, true}, {20 * time.Minute, false}} {
		w := newWorld(t)
		base := t.TempDir()
		d := w.start(w.enrolled(base), func(o *Options) {
			o.Now = func() time.Time { return time.Now().Add(-c.off) }
			o.Retry = time.Second // leaves room for beats between hellos
		})
		w.publish(tree(3, "one"), filepath.Join(base, "p"))
		w.await("clock problem", func() bool { return w.problems()[ProblemClock] != "" })
		if c.runs {
			w.await("run", func() bool { return w.finished(0) != nil })
		} else {
			w.want(func(s *wire.State) { s.Beat = 1 })
			w.twoBeats()
		}
		d.end()
		if _, err := os.Lstat(filepath.Join(base, "p")); (err == nil) != c.runs {
			t.Errorf("%s apart: target: %v", c.off, err)
		}
	}
}

func TestEnrolRefusals(t *testing.T) {
	w := newWorld(t)
	text := w.token("tok1")
	enrol := func(dir string, change func(*wire.Token)) error {
		tok, err := wire.ParseToken(text)
		w.try(err)
		if change != nil {
			change(tok)
		}
		changed, err := tok.Text()
		w.try(err)
		_, err = Enrol(t.Context(), changed, EnrolOptions{StateDir: dir, Now: time.Now, Timeout: 5 * time.Second})
		if err != nil && (strings.Contains(err.Error(), changed) || strings.Contains(err.Error(), tok.JWT)) {
			t.Errorf("the error shows the token: %v", err)
		}
		return err
	}
	dir := t.TempDir()
	var refused *RefusedError
	if err := enrol(dir, func(tok *wire.Token) { tok.Expires = 1 }); !errors.As(err, &refused) || refused.Code != "expired" || refused.Remedy() == "" {
		t.Errorf("an expired token: %v", err)
	}
	if err := enrol(dir, func(tok *wire.Token) { tok.CA = digest.Of([]byte("other")) }); !errors.Is(err, bus.ErrPin) {
		t.Errorf("another Core: %v", err)
	}
	if err := enrol(dir, func(tok *wire.Token) { tok.Root = trust.Public{1} }); !errors.Is(err, trust.ErrUntrusted) {
		t.Errorf("another root key: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, seedFile))
	w.try(err)
	w.try(enrol(dir, nil))
	again, err := os.ReadFile(filepath.Join(dir, seedFile))
	if err != nil || string(again) != string(key) {
		t.Errorf("a half-done enrollment's key was not used again: %v", err)
	}
	if err := enrol(dir, nil); !errors.Is(err, ErrEnrolled) {
		t.Errorf("enrolled twice: %v", err)
	}
	if err := enrol(t.TempDir(), nil); !errors.As(err, &refused) || refused.Code != "used" {
		t.Errorf("a token used twice: %v", err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	w.try(os.Mkdir(filepath.Join(base, "a"), 0o755))
	dir := w.enrolled(filepath.Join(base, "a"), filepath.Join(base, "none"))
	bad := map[string]bool{}
	for _, f := range Check(t.Context(), CheckOptions{StateDir: dir, Now: time.Now}) {
		if f.Err != nil {
			bad[strings.Fields(f.What)[0]+" "+filepath.Base(f.What)] = true
		}
	}
	// The account of this test owns base.
	if len(bad) != 3 || !bad["write none"] || !bad["not a"] || !bad["not none"] {
		t.Errorf("findings %v", bad)
	}
	left, err := os.ReadDir(filepath.Join(base, "a"))
	if err != nil || len(left) != 0 {
		t.Errorf("check leaves %v, %v", left, err)
	}
}
