package core

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/bus"
	"nightferry/internal/clock"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/halting"
	"nightferry/internal/ledger"
	"nightferry/internal/publishing"
	"nightferry/internal/record"
	"nightferry/internal/repo"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// Core is an open Core. Its methods are safe for concurrent use.
type Core struct {
	o      Options
	dir    *durable.Root
	state  *durable.Root // saved state of the repository, and caches
	unlock func() error
	ledger *ledger.Ledger
	vault  *vault.Vault
	given  sync.Map // vault.Secret, by name, with which letters were last sent
	logs   *record.Logs

	keys      atomic.Pointer[keys]
	store     atomic.Pointer[backend]
	repo      atomic.Pointer[repo.Repo]
	repoMu    sync.Mutex
	settings  atomic.Pointer[Settings]
	authority atomic.Pointer[bus.Authority]
	changeMu  sync.Mutex                      // one change of the authority at a time
	renewMu   sync.RWMutex                    // held while a credential is signed and sent
	domains   map[string][][]byte             // the domains' signing keys in force
	rotating  atomic.Pointer[map[string]bool] // domains with an older key that still counts

	skew    clock.Skew    // between this machine's clock and the store's
	started time.Time     // by this machine's clock
	motion  window.Motion // the calendar's clock, where this is a rehearsal
	fleet   sites
	shelf   shelf // what each release needs of the store
	pages   pageCache
	deltas  deltas
	enrols  enrolments
	joinMu  sync.Mutex // one enrolment or revocation at a time
	follow  followers
	alarms  alarms
	count   counters
	tasks   *tasks.Service

	desired     *desired.Service
	newest      newest
	lastRelease atomic.Pointer[keptRelease]
	halting     *halting.Service
	halts       *haltRecord // of halting
	looked      looked
	catching    atomic.Bool // a site's newer halt orders are being learned

	publishing publishing.Service
	sources    sources
	healing    atomic.Bool // something was published since the bucket was checked
	render     chan struct{}

	server                *bus.Server // nil with foreign
	foreign               *foreign    // nil: the bus is our own
	recheck               chan struct{}
	client                *bus.Client
	cert                  atomic.Pointer[tls.Certificate]
	ready                 chan struct{}
	work                  [shards]chan message
	asking                chan struct{} // bounds the asks that are answered at once
	asides                sync.WaitGroup
	lastResign, lastPurge clock.Calendar // of the daily work; used by one goroutine at a time
}

func newCore(o Options) *Core {
	c := &Core{o: o, ready: make(chan struct{}), render: make(chan struct{}, 1), recheck: make(chan struct{}, 1), asking: make(chan struct{}, allAsks)}
	for i := range c.work {
		c.work[i] = make(chan message, 64)
	}
	c.pages.core, c.shelf.core = c, c
	c.tasks = c.newTasks()
	c.sources.wake = make(chan struct{}, 1)
	c.started = o.Now()
	return c
}

func (o *Options) fill() {
	if o.Logs == "" {
		o.Logs = joinPath(o.Data, logsName)
	}
	if o.Beat == 0 {
		o.Beat = time.Minute
	}
	if o.Silent == 0 {
		o.Silent = 5 * time.Minute
	}
	if o.Poll == 0 {
		o.Poll = 15 * time.Second
	}
	if o.Store.UserAgent == "" {
		o.Store.UserAgent = "nightferry/" + o.Version
	}
}

// Run serves until ctx ends, and returns nil then. It is called once.
func (c *Core) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	looked := make(chan struct{})
	g.Go(func() error {
		_ = c.look(ctx) // told as an incident
		close(looked)
		return c.every(ctx, "look at the store", c.o.Poll, lateTask, c.look)
	})
	c.awaitStore(ctx, looked)
	if err := c.listen(ctx); err != nil {
		cancel()
		_ = g.Wait() // it was told to end
		return err
	}
	if err := c.closeOwnRuns(ctx); err != nil {
		c.ledgerFailed(err) // the next start tries it again
	}
	for i := range c.work {
		g.Go(func() error { return c.serve(ctx, c.work[i]) })
	}
	g.Go(func() error { return c.halting.Run(ctx) })
	g.Go(func() error { return c.every(ctx, "sightings", 10*time.Second, lateTask, quiet(c.tick)) })
	g.Go(func() error {
		_ = c.upkeep(ctx) // told as its trouble
		return c.every(ctx, "upkeep", c.pace(time.Hour), lateLong, c.upkeep)
	})
	g.Go(func() error {
		b := &beats{}
		return c.every(ctx, "cadences", c.pace(min(c.o.Poll, 15*time.Second)), lateTask, quiet(func(ctx context.Context) { c.publishDue(ctx, b) }))
	})
	g.Go(func() error {
		return c.every(ctx, "missed windows", c.pace(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.noteMissed)
	})
	g.Go(func() error {
		return c.every(ctx, "stale sites", c.pace(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.noteStale)
	})
	g.Go(func() error { return c.renderAll(ctx) })
	g.Go(func() error { return c.measureAll(ctx) })
	g.Go(func() error {
		return c.every(ctx, "bucket check", min(4*c.o.Poll, time.Minute), lateLong, quiet(c.checkBucketDue))
	})
	g.Go(func() error { return c.alarms.Serve(ctx) })
	g.Go(func() error { return c.tasks.Watch(ctx, time.Minute) })
	people := &teller{core: c}
	g.Go(func() error { return c.every(ctx, "alerts", c.pace(c.o.Poll), lateTask, quiet(people.tellPeople)) })
	if c.foreign != nil {
		g.Go(func() error { return c.watchCluster(ctx) })
	}
	c.kickRender()
	close(c.ready)
	c.tellAll(ctx)
	err = g.Wait()
	c.asides.Wait()
	c.client.Close()
	if c.server != nil {
		c.server.Close()
	}
	c.tick(context.WithoutCancel(ctx)) // the last sightings
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// firstLook bounds how long the bus waits for the first poll of the store. After that poll, sites
// get the newest releases at once.
const firstLook = 5 * time.Second

// awaitStore returns when the store was looked at, or does not answer.
func (c *Core) awaitStore(ctx context.Context, looked <-chan struct{}) {
	late := time.NewTimer(firstLook)
	defer late.Stop()
	select {
	case <-looked:
	case <-ctx.Done():
	case <-late.C:
		c.trouble("store", fmt.Errorf("it has not answered within %s: the Core serves without it, with what it knew last, and tries again", firstLook))
	}
}

// Ready is closed once Run listens.
func (c *Core) Ready() <-chan struct{} { return c.ready }

// Addr is where the bus listens, from Ready on; empty if it is not our own.
func (c *Core) Addr() string {
	if c.server == nil {
		return ""
	}
	return c.server.Addr()
}

// WebSocketAddr is its second door; empty if there is none.
func (c *Core) WebSocketAddr() string {
	if c.server == nil {
		return ""
	}
	return c.server.WebSocketAddr()
}

// Vault returns the open vault. Accesses are audited with ctx's actor.
func (c *Core) Vault() *vault.Vault { return c.vault }

// LogsDir is the folder of the job logs.
func (c *Core) LogsDir() string { return c.o.Logs }

// certLife is how long the bus's certificate is good; renewed when a third is
// left.
const certLife = 90 * 24 * time.Hour

func (c *Core) newCert() error {
	if c.foreign != nil {
		return nil
	}
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, c.publicNames()...)
	chain, key, err := c.keys.Load().ca.Server(hosts, c.now(), certLife)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("make the bus's certificate: %w", err)
	}
	c.cert.Store(&pair)
	return nil
}

func (c *Core) listen(ctx context.Context) error {
	if c.foreign != nil {
		return c.joinCluster(ctx)
	}
	if err := c.newCert(); err != nil {
		return err
	}
	var err error
	c.server, err = bus.Start(bus.ServerOptions{
		Name: "nightferry", Addr: c.o.Addr, WebSocketAddr: c.o.WebSocketAddr,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.cert.Load(), nil },
		Authority:   c.authority.Load(),
		Log:         c.o.BusLog,
		Refused:     func(text string, shown *bus.Grant) { c.busRefuses(ctx, text, shown) },
	})
	if err != nil {
		return err
	}
	seed, public, err := bus.NewIdentity() // its own at every start: nobody keeps it
	if err == nil {
		c.client, err = bus.Dial(ctx, bus.ClientOptions{
			Server: c.server, Seed: seed, Name: "core", Now: c.o.Now, Pending: 64 << 20,
			JWT: func() (string, error) {
				return c.authority.Load().Core(public, userLife, c.o.Now())
			},
			OnEvent: func(e bus.Event) {
				if e.Err != nil && ctx.Err() == nil { // the Core's own end is none
					c.trouble("bus", fmt.Errorf("%s: %w", e.Kind, e.Err))
				}
			},
		})
	}
	if err == nil {
		if err = c.client.Subscribe(wire.AllUp, func(subject string, data []byte) { c.receive(subject, data) }); err == nil {
			err = c.client.Flush(ctx) // who connects from now on is heard
		}
		if err != nil {
			c.client.Close()
		}
	}
	if err != nil {
		c.server.Close()
		return fmt.Errorf("start the bus: %w", err)
	}
	return nil
}

// urls are what sites dial.
func (c *Core) urls() []string {
	if urls := c.publicURLs(); len(urls) > 0 {
		return urls
	}
	var urls []string
	if addr := c.server.Addr(); addr != "" {
		_, port, _ := net.SplitHostPort(addr)
		urls = append(urls, "tls://localhost:"+port)
	}
	if ws := c.server.WebSocketAddr(); ws != "" {
		_, port, _ := net.SplitHostPort(ws)
		urls = append(urls, "wss://localhost:"+port)
	}
	return urls
}
