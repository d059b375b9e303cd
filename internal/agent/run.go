package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

const (
	defaultBeat = time.Minute
	// maxRetry bounds the wait before what failed is tried again.
	maxRetry = 30 * time.Minute
)

// agent is a running daemon.
type agent struct {
	session
	keys  *keyring
	halts *haltState
	urls  *urls
	store bucket.Store
	rate  *rate.Limiter // of the whole site

	receive bucket.Receive // keeps what moves to the rate also on the line

	work signal // what should be done may have changed

	mu        sync.Mutex
	state     *wire.State // nil: none was accepted yet
	night     *night      // of state
	revision  uint64
	fills     *fills
	scrubs    *scrubs
	turns     turns
	preparing preparations
	running   map[string]*job
	next      map[string]attempt // by channel: when it may be tried again
	refused   map[string]string  // by channel: the target that was refused
	waits     []wire.Wait        // why due channels have not started
	beaten    uint64             // revision that the Core knows to be accepted, or will learn with the next heartbeat
	fatal     error

	failures map[string]string    // by channel: why its last run did not end well
	stuck    map[string]wire.Wait // by channel: why its run waits at present
}

// signal wakes one waiter; several that come together are one.
type signal chan struct{}

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Run is the daemon. It returns nil when ctx ends, and an error when it cannot
// go on: the state directory holds no identity, is in use or is readable by
// others, or the agent's database has become corrupt, which the next start
// mends.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.setDefaults(); err != nil {
		return err
	}
	id, err := Load(o.StateDir)
	if err != nil {
		return err
	}
	root, err := durable.Open(o.StateDir, durable.Options{Trusted: true})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	unlock, err := lockSite(ctx, root)
	if err != nil {
		return fmt.Errorf("agent in %q: %w", o.StateDir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	sp, err := spool.Open(ctx, filepath.Join(root.Dir(), spoolFile), spool.Options{Now: o.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sp.Close()) }()
	if sp.Aside() != "" {
		o.Log(Note{Level: Error, Text: "the agent's database was damaged and is set aside as " + sp.Aside()})
	}
	a := newAgent(o, id, root, sp)
	if err := a.loadAccepted(ctx); err != nil {
		return err
	}
	if sp.Aside() == "" { // it is sound, since it was made anew
		if err := a.resolveProblem(ctx, ProblemSpool, ""); err != nil {
			return err
		}
	}
	return a.serve(ctx)
}

// lockTries bounds the wait for the lock: nightferry-agent status holds it for a moment.
const lockTries = 20

func lockSite(ctx context.Context, root *durable.Root) (unlock func() error, err error) {
	for try := 1; ; try++ {
		unlock, err = durable.Lock(root, lockFile)
		if !errors.Is(err, durable.ErrBusy) || try == lockTries {
			return unlock, err
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		case <-pause.C:
		}
	}
}

func newAgent(o Options, id *Identity, root *durable.Root, sp *spool.Spool) *agent {
	if o.Machine == nil {
		o.Machine = thisMachine(id.Repo[:])
	}
	a := &agent{session: newSession(o, id, root, sp), rate: newLimiter(0), work: make(signal, 1), failures: map[string]string{}, stuck: map[string]wire.Wait{},
		running: map[string]*job{}, next: map[string]attempt{}, refused: map[string]string{}, preparing: preparations{plans: map[string]*preparation{}}}
	a.fills = &fills{spool: sp, machine: o.Machine, desired: func(channel string) *wire.Desired {
		a.mu.Lock()
		defer a.mu.Unlock()
		return findDesired(a.state, channel)
	}}
	a.scrubs = &scrubs{s: &a.session, passes: map[string]*pass{}}
	a.halts = newHaltState(&a.session, a.work)
	a.keys = &keyring{s: &a.session, newer: func() { a.urls.forgetAbsent() }}
	a.halts.keys = a.keys
	a.halts.beat = func(ctx context.Context) error { return a.sendBeat(ctx, false) }
	return a
}

// loadAccepted takes up what an earlier process has accepted.
func (a *agent) loadAccepted(ctx context.Context) (err error) {
	if a.jwt, err = readJWT(a.root); err != nil {
		return err
	}
	a.restoreLink()
	if err := a.keys.load(ctx); err != nil {
		return err
	}
	kept, err := a.spool.Kept(ctx, spool.State)
	if err != nil {
		return err
	}
	if len(kept.Object) > 0 {
		// It was checked when it was accepted; its signer may be retired by now.
		var s wire.State
		a.revision = kept.Number
		if err := wire.Decode(kept.Object, &s); err != nil {
			// An older program's: the Core states it again.
			a.logNote(Warning, "", "the state that was kept cannot be read, and is asked for again", err)
		} else {
			a.state, a.night = &s, readNight(&s)
			a.halts.updateSite(&s, a.night.motion)
		}
	}
	if a.turns.since, err = a.spool.Waiting(ctx); err != nil {
		return err
	}
	return a.halts.rememberHalts(ctx)
}

func (a *agent) serve(life context.Context) (err error) {
	ctx, stop := context.WithCancelCause(life)
	defer stop(nil)
	a.urls = newURLs(func(q wire.Ask) error { return a.publishSigned(wire.VerbAsk, &q) }, a.storeNow, a.o.AckWait)
	lent, err := a.spool.Presigned(ctx, a.storeNow().Unix())
	if err != nil {
		return err
	}
	a.urls.restoreKept(lent, repo.TrustKey(a.keys.current().Number+1))
	a.store, err = openStore(&a.session, a.urls, &a.receive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close(a.store)) }()
	a.halts.urls, a.halts.store = a.urls, a.store
	a.bus, err = a.o.Dial(ctx, bus.ClientOptions{URLs: a.id.Core, Pins: []bus.Pin{bus.Pin(a.id.CA)}, Seed: a.id.seed, Name: a.id.Address().String(),
		JWT: a.credential, Env: a.o.Env, Background: true, OnEvent: a.handleConnection, Now: a.o.Now})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	defer a.bus.Close()
	to := a.id.Address()
	if err := a.bus.Subscribe(to.AllDown(), func(subject string, data []byte) {
		err := a.handleMessage(ctx, subject, data)
		if errors.Is(err, spool.ErrFull) {
			a.logNote(Error, "", "the Core's desired state cannot be stored, and is not applied", err)
		} else if err != nil && ctx.Err() == nil {
			a.recordFailure(err)
			stop(err)
		}
	}); err != nil {
		return err
	}
	a.logNote(Info, "", fmt.Sprintf("agent of %s begins, holding revision %d", to, a.revision), nil)
	g.Go(func() error { return a.sendHeartbeats(ctx) })
	g.Go(func() error { return a.sendReports(ctx) })
	g.Go(func() error { return a.startDueJobs(ctx) })
	g.Go(func() error { return a.halts.watchLocal(ctx) })
	g.Go(func() error { return a.halts.confirmHalts(ctx) })
	g.Go(func() error { return a.halts.pollHalts(ctx) })
	g.Go(func() error { return a.writeLinks(ctx) })
	a.hello.wake()
	a.work.wake()
	a.report.wake()
	err = g.Wait()
	a.noteConnection(bus.Event{Kind: bus.Lost})
	if err := a.writeLink(); err != nil {
		a.logNote(Warning, "", "the end of the connection cannot be shown on this site", err)
	}
	_ = a.sendBeat(context.WithoutCancel(ctx), true) // if it is lost, the Core notices the silence
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fatal != nil {
		return a.fatal
	}
	// Only who asked it to stop gets no error: ctx, of the group, also ends with the first of its own.
	if life.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(life))) {
		return nil
	}
	return err
}

// recordFailure keeps the error that ends the agent.
func (a *agent) recordFailure(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fatal == nil {
		a.fatal = err
	}
}

func (c *session) logNote(level Level, channel, text string, err error) {
	c.o.Log(Note{Level: level, Channel: channel, Text: text, Err: err})
}

func (c *session) storeNow() time.Time {
	o := &c.storeClock
	if !o.known.Load() {
		o = &c.coreClock // the Core's is corrected by the store's
	}
	return c.o.Now().Add(o.get())
}

func (c *session) credential() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jwt, nil
}

// publishSigned signs and publishes; what cannot be sent now is lost.
func (c *session) publishSigned(verb string, v any) error {
	to := c.id.Address()
	b, err := wire.Sign(c.id.key, c.id.Repo, to, verb, 0, v)
	if err != nil {
		return err
	}
	return c.bus.Publish(to.Up(verb), b)
}

// handleConnection is told of what happens to the connection.
func (a *agent) handleConnection(e bus.Event) {
	switch e.Kind {
	case bus.Connected, bus.Lost, bus.Failed, bus.Unwelcome:
		a.noteConnection(e)
	}
	switch e.Kind {
	case bus.Connected:
		a.logNote(Info, "", "connected to the Core at "+e.URL, nil)
		a.hello.wake()
		a.report.wake()
		select {
		case a.acks <- ack{again: true}:
		default:
		}
		a.urls.Again()
	case bus.Unwelcome, bus.Denied, bus.Limited, bus.Slow:
		a.logNote(Error, "", "the Core's bus: "+e.Kind.String(), e.Err)
	case bus.Lost, bus.Failed:
		a.logNote(Warning, "", "the Core is away: "+e.Kind.String(), e.Err)
	}
}

// sendHeartbeats says hello, and that the site lives.
func (a *agent) sendHeartbeats(ctx context.Context) error {
	for {
		a.mu.Lock()
		wait := time.NewTimer(beatOf(a.state))
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-a.beat:
			if err := a.sendBeat(ctx, false); err != nil {
				return err
			}
		case <-a.hello:
			if err := a.sendHello(ctx); err != nil {
				return err
			}
			a.halts.answers.again.wake()
			a.requestRenewal()
		case <-wait.C:
			if err := a.sendBeat(ctx, false); err != nil {
				return err
			}
			a.requestRenewal()
		}
		wait.Stop()
	}
}

// leaveWithin bounds how long an agent that stops waits for its last message.
const leaveWithin = time.Second

// beatOf is the time between two beats that a state, or none, asks for.
func beatOf(s *wire.State) time.Duration {
	if s == nil || s.Beat == 0 {
		return defaultBeat
	}
	return time.Duration(s.Beat) * time.Second
}

// trySend says what is said again later, whatever becomes of it now.
func (c *session) trySend(verb string, v any) {
	if err := dropTransient(c.publishSigned(verb, v)); err != nil {
		c.logNote(Warning, "", "tell the Core: "+verb, err)
	}
}

// dropTransient drops the error of something that is said again later.
func dropTransient(err error) error {
	if errors.Is(err, bus.ErrAway) {
		return nil
	}
	return err
}

func (a *agent) sendHello(ctx context.Context) error {
	holds, spooled, err := readHoldings(ctx, a.spool)
	if err != nil {
		return err
	}
	if a.starts.Count == 0 {
		if a.starts, err = a.spool.Start(ctx, a.instance); err != nil && ctx.Err() == nil {
			a.logNote(Warning, "", "this start cannot be recorded, so the Core cannot find out a copy of this server by it", err)
		}
	}
	a.mu.Lock()
	h := wire.Hello{Generation: a.spool.Generation(), Version: a.o.Version, System: runtime.GOOS + "/" + runtime.GOARCH, At: a.o.Now().UnixMilli(),
		StoreClock: a.storeClock.ms.Load(), Trust: a.keys.current().Number, Revision: a.revision, Epoch: a.halts.durableEpoch(), Holds: holds, Spooled: spooled, Instance: a.instance, Machine: machineName(),
		Lineage: a.starts.Lineage, Starts: a.starts.Count, Started: a.starts.Latest}
	a.beaten = a.revision
	a.mu.Unlock()
	a.trySend(wire.VerbHello, &h)
	return nil
}

// readHoldings returns the held releases, and the number of events that the Core has not acknowledged.
// Both are of one moment: no event was spooled between the reads.
func readHoldings(ctx context.Context, s *spool.Spool) (list []wire.Held, spooled uint64, err error) {
	for {
		spooled, next, err := s.Spooled(ctx)
		if err != nil {
			return nil, 0, err
		}
		holds, err := s.Holds(ctx)
		if err != nil {
			return nil, 0, err
		}
		_, now, err := s.Spooled(ctx)
		if err != nil {
			return nil, 0, err
		}
		if now != next {
			continue
		}
		for _, h := range holds {
			list = append(list, h.Held)
		}
		return list, spooled, nil
	}
}

// sendBeat sends a heartbeat. With leaving it is the last one, and waits a moment
// until the bus has it.
func (a *agent) sendBeat(ctx context.Context, leaving bool) error {
	holds, spooled, err := readHoldings(ctx, a.spool)
	if err != nil {
		return err
	}
	a.mu.Lock()
	b := wire.Beat{At: a.o.Now().UnixMilli(), StoreClock: a.storeClock.ms.Load(), Trust: a.keys.current().Number, Revision: a.revision, Epoch: a.halts.durableEpoch(), Holds: holds, Spooled: spooled, Instance: a.instance, Waits: a.waits, Leaving: leaving}
	a.beaten = a.revision
	a.mu.Unlock()
	a.trySend(wire.VerbBeat, &b)
	if leaving {
		ctx, cancel := context.WithTimeout(ctx, leaveWithin)
		defer cancel()
		return a.bus.Flush(ctx)
	}
	return nil
}

// requestRenewal asks for a new credential when a third of this one's life is left.
func (c *session) requestRenewal() {
	c.mu.Lock()
	jwt := c.jwt
	c.mu.Unlock()
	g, err := bus.ReadGrant(jwt)
	if err != nil || g.Expires.IsZero() {
		return
	}
	if c.o.Now().Before(g.Expires.Add(-g.Expires.Sub(g.Issued) / 3)) {
		return
	}
	c.trySend(wire.VerbRenew, &wire.Renew{At: c.o.Now().UnixMilli()})
}

// machineName names this machine for people: its host name and addresses.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown host"
	}
	var ips []string
	addresses, _ := net.InterfaceAddrs() // none: the name is what there is
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			ips = append(ips, n.IP.String())
		}
	}
	text := name
	if len(ips) > 0 {
		text += " (" + strings.Join(ips[:min(len(ips), 4)], ", ") + ")"
	}
	return strings.ToValidUTF8(text[:min(len(text), wire.MaxMachine)], "")
}

func random16() []byte {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return b
}
