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
	"nightferry/internal/incident"
	"nightferry/internal/ledger"
	"nightferry/internal/lending"
	"nightferry/internal/publishing"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// Core is an open Core. Its methods are safe for concurrent use.
type Core struct {
	o      Options
	dir    *durable.Root
	unlock func() error
	ledger *ledger.Ledger
	vault  *vault.Vault
	given  sync.Map // vault.Secret, by name, with which letters were last sent
	logs   *record.Logs

	storage   storage
	down      downlink
	states    stateSender
	refusals  refusals
	settings  atomic.Pointer[Settings]
	authority atomic.Pointer[bus.Authority]
	changeMu  sync.Mutex                      // one change of the authority at a time
	renewMu   sync.RWMutex                    // held while a credential is signed and sent
	domains   map[string][][]byte             // the domains' signing keys in force
	rotating  atomic.Pointer[map[string]bool] // domains with an older key that still counts

	clock    clocks
	notices  notices
	started  time.Time // by this machine's clock
	fleet    sites
	releases *releases.Reader
	lending  *lending.Service
	enrols   enrolments
	joinMu   sync.Mutex        // one enrolment or revocation at a time
	alarms   *incident.Service // of notices
	count    counters
	tasks    *tasks.Service

	desired  *desired.Service
	newest   newest
	halting  *halting.Service
	halts    *haltRecord // of halting
	looked   looked
	catching atomic.Bool // a site's newer halt orders are being learned

	publishing publishing.Service
	sources    sources
	healing    atomic.Bool // something was published since the bucket was checked
	render     chan struct{}

	server                *bus.Server // nil with foreign
	foreign               *foreign    // nil: the bus is our own
	recheck               chan struct{}
	cert                  atomic.Pointer[tls.Certificate]
	ready                 chan struct{}
	work                  [shards]chan message
	asides                sync.WaitGroup
	lastResign, lastPurge clock.Calendar // of the daily work; used by one goroutine at a time
}

func newCore(o Options) *Core {
	c := &Core{o: o, notices: notices{now: o.Now, onEvent: o.OnEvent}, ready: make(chan struct{}), render: make(chan struct{}, 1), recheck: make(chan struct{}, 1)}
	for i := range c.work {
		c.work[i] = make(chan message, 64)
	}
	c.started = o.Now()
	c.clock.device, c.clock.storeTime = o.Now, c.storage.storeTime
	c.storage.o, c.storage.clock, c.storage.notices = &c.o, &c.clock, &c.notices
	c.fleet.now, c.fleet.beat, c.fleet.started = o.Now, o.Beat, c.started
	c.down = downlink{storage: &c.storage, fleet: &c.fleet, notices: &c.notices}
	c.states.down, c.states.storage, c.states.fleet, c.states.clock, c.states.notices, c.states.ready = &c.down, &c.storage, &c.fleet, &c.clock, &c.notices, c.ready
	c.refusals = refusals{notices: &c.notices, down: &c.down, known: func(a wire.Address) bool { return c.fleet.find(a) != nil }, now: o.Now, counts: map[string]int64{}, last: map[reason]time.Time{}}
	c.tasks = c.newTasks()
	c.sources.wake = make(chan struct{}, 1)
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
		c.notices.LedgerFailed(err) // the next start tries it again
	}
	for i := range c.work {
		g.Go(func() error { return c.serve(ctx, c.work[i]) })
	}
	g.Go(func() error { return c.halting.Run(ctx) })
	g.Go(func() error { return c.every(ctx, "sightings", 10*time.Second, lateTask, quiet(c.tick)) })
	g.Go(func() error {
		_ = c.upkeep(ctx) // told as its trouble
		return c.every(ctx, "upkeep", c.clock.pace(time.Hour), lateLong, c.upkeep)
	})
	g.Go(func() error {
		b := &beats{}
		return c.every(ctx, "cadences", c.clock.pace(min(c.o.Poll, 15*time.Second)), lateTask, quiet(func(ctx context.Context) { c.publishDue(ctx, b) }))
	})
	g.Go(func() error {
		return c.every(ctx, "missed windows", c.clock.pace(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.noteMissed)
	})
	g.Go(func() error {
		return c.every(ctx, "stale sites", c.clock.pace(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.noteStale)
	})
	g.Go(func() error { return c.renderAll(ctx) })
	g.Go(func() error { return c.measureAll(ctx) })
	g.Go(func() error {
		return c.every(ctx, "bucket check", min(4*c.o.Poll, time.Minute), lateLong, quiet(c.checkBucketDue))
	})
	g.Go(func() error { return c.alarms.Serve(ctx) })
	g.Go(func() error { return c.tasks.Watch(ctx, time.Minute) })
	people := &teller{core: c}
	g.Go(func() error {
		return c.every(ctx, "alerts", c.clock.pace(c.o.Poll), lateTask, quiet(people.tellPeople))
	})
	if c.foreign != nil {
		g.Go(func() error { return c.watchCluster(ctx) })
	}
	c.kickRender()
	close(c.ready)
	c.states.sendAll(ctx)
	err = g.Wait()
	c.asides.Wait()
	c.lending.Wait()
	c.down.client.Close()
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
		c.notices.Trouble("store", fmt.Errorf("it has not answered within %s: the Core serves without it, with what it knew last, and tries again", firstLook))
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
	chain, key, err := c.storage.keys.Load().ca.Server(hosts, c.clock.now(), certLife)
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
		c.down.client, err = bus.Dial(ctx, bus.ClientOptions{
			Server: c.server, Seed: seed, Name: "core", Now: c.o.Now, Pending: 64 << 20,
			JWT: func() (string, error) {
				return c.authority.Load().Core(public, userLife, c.o.Now())
			},
			OnEvent: func(e bus.Event) {
				if e.Err != nil && ctx.Err() == nil { // the Core's own end is none
					c.notices.Trouble("bus", fmt.Errorf("%s: %w", e.Kind, e.Err))
				}
			},
		})
	}
	if err == nil {
		if err = c.down.client.Subscribe(wire.AllUp, func(subject string, data []byte) { c.receive(subject, data) }); err == nil {
			err = c.down.client.Flush(ctx) // who connects from now on is heard
		}
		if err != nil {
			c.down.client.Close()
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
