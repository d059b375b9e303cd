package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/apitokens"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/enrolment"
	"nightferry/internal/heads"
	"nightferry/internal/idempotency"
	"nightferry/internal/incarnation"
	"nightferry/internal/incident"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/lending"
	"nightferry/internal/publishing"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/reports"
	"nightferry/internal/signin"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
)

// Core is an open Core. It composes its parts and handles the messages of sites.
// Its methods are safe for concurrent use.
type Core struct {
	o        Options
	dir      *durable.Root
	unlock   func() error
	ledger   *ledger.Ledger
	vault    *vault.Vault
	logs     *record.Logs
	settings atomic.Pointer[Settings]

	// What people and programs ask of the Core.
	Query     *query.Service
	Orders    Orders
	Rights    Rights
	Door      Door
	Tokens    *apitokens.Service
	SignIn    *signin.Service
	Repeats   *idempotency.Service
	Jobs      *jobs.Service
	Halts     Halts
	Enrolment *enrolment.Service
	Publisher Publisher
	Notifier  Notifier
	Upkeep    Caretaker

	// What every part uses.
	clock     clocks
	notices   notices
	incidents *incident.Service // of notices
	storage   storage
	fleet     sites
	newest    *heads.Service
	asides    sync.WaitGroup // work that Run waits for

	// The way to the sites.
	access   access
	link     busLink
	down     downlink
	states   stateSender
	refusals refusals

	desired     *desired.Service
	incarnation *incarnation.Service
	accounts    accounts
	lending     *lending.Service
	releases    *releases.Reader
	tasks       *tasks.Service
	publishing  publishing.Service
	reports     *reports.Service
	renderer    *reports.Renderer
	measurer    measurer
	cadences    cadences
	watching    storeWatch
	watch       watch
	sightings   sightings
	reserve     reserve
	vaultAudit  lateAudit

	messages counters
	ready    chan struct{}
	work     [shards]chan message
}

func (o *Options) setDefaults() {
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
		_ = c.watching.readStore(ctx) // told as an incident
		close(looked)
		return c.runEvery(ctx, "look at the store", c.o.Poll, lateTask, c.watching.readStore)
	})
	c.awaitStore(ctx, looked)
	if err := c.link.listenBus(ctx); err != nil {
		cancel()
		_ = g.Wait() // it was told to end
		return err
	}
	if err := c.Publisher.closeOwnRuns(ctx); err != nil {
		c.notices.LedgerFailed(err) // the next start tries it again
	}
	for i := range c.work {
		g.Go(func() error { return c.serveMessages(ctx, c.work[i]) })
	}
	g.Go(func() error { return c.Halts.service.Run(ctx) })
	g.Go(func() error { return c.Jobs.Run(ctx) })
	g.Go(func() error {
		return c.runEvery(ctx, "sightings", 10*time.Second, lateTask, quietTask(func(ctx context.Context) {
			c.sightings.writeSightings(ctx)
			c.vaultAudit.flush(ctx)
		}))
	})
	g.Go(func() error {
		_ = c.Upkeep.runDaily(ctx) // told as its trouble
		return c.runEvery(ctx, "upkeep", c.clock.checkPeriod(time.Hour), lateLong, c.Upkeep.runDaily)
	})
	g.Go(func() error {
		b := &beats{}
		return c.runEvery(ctx, "cadences", c.clock.checkPeriod(min(c.o.Poll, 15*time.Second)), lateTask, quietTask(func(ctx context.Context) { c.cadences.startDue(ctx, b) }))
	})
	g.Go(func() error {
		return c.runEvery(ctx, "missed windows", c.clock.checkPeriod(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.watch.noteMissed)
	})
	g.Go(func() error {
		return c.runEvery(ctx, "stale sites", c.clock.checkPeriod(min(4*c.o.Poll, 5*time.Minute)), lateTask, c.watch.noteStale)
	})
	g.Go(func() error { return c.renderer.Run(ctx) })
	g.Go(func() error { return c.measurer.runDue(ctx) })
	g.Go(func() error {
		return c.runEvery(ctx, "bucket check", min(4*c.o.Poll, time.Minute), lateLong, quietTask(c.Upkeep.checkBucketDue))
	})
	g.Go(func() error { return c.incidents.Serve(ctx) })
	g.Go(func() error { return c.tasks.Watch(ctx, time.Minute) })
	people := &dispatcher{by: &c.Notifier}
	g.Go(func() error {
		return c.runEvery(ctx, "alerts", c.clock.checkPeriod(c.o.Poll), lateTask, quietTask(people.notifyPeople))
	})
	if c.link.foreign != nil {
		g.Go(func() error { return c.link.watchCluster(ctx) })
	}
	c.renderer.Kick()
	close(c.ready)
	c.states.sendAll(ctx)
	err = g.Wait()
	c.asides.Wait()
	c.lending.Wait()
	c.down.client.Close()
	if c.link.server != nil {
		c.link.server.Close()
	}
	c.sightings.writeSightings(context.WithoutCancel(ctx)) // the last sightings
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
		c.notices.ReportFailure("store", fmt.Errorf("it has not answered within %s: the Core serves without it, from the last state it read, and tries again", firstLook))
	}
}

// Ready is closed once Run listens.
func (c *Core) Ready() <-chan struct{} { return c.ready }

// Addr is where the bus listens, from Ready on; empty if it is not our own.
func (c *Core) Addr() string {
	if c.link.server == nil {
		return ""
	}
	return c.link.server.Addr()
}

// WebSocketAddr is its second door; empty if there is none.
func (c *Core) WebSocketAddr() string {
	if c.link.server == nil {
		return ""
	}
	return c.link.server.WebSocketAddr()
}

// Vault returns the open vault. Accesses are audited with ctx's actor.
func (c *Core) Vault() *vault.Vault { return c.vault }

// LogsDir is the folder of the job logs.
func (c *Core) LogsDir() string { return c.o.Logs }
