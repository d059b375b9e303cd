// Package core is the Core's daemon: it owns content, credentials, jobs and
// records. It publishes releases, states what every site should hold, lends
// sites the URLs of what they need, commits what they report and renders it
// into log files.
//
// The Core accepts a site's message only if its subject and its signature are valid, and a site's
// statement about a release only if it agrees with the Core's own data. Every refusal is audited
// and opens an incident.
//
// Log files are derived from the ledger, and state is stated again whenever a
// site is seen to be behind: so a crash anywhere loses nothing and doubles
// nothing, and no order between the two sides needs to be kept.
package core

import (
	"context"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/schedule"
	"nightferry/internal/signin"
	"nightferry/internal/vault"
)

// Options are what a Core is started with; a change of them needs a restart.
type Options struct {
	Data   string       // folder of vault, ledger, logs and caches, made by Init
	Logs   string       // folder of the job logs; empty: logs below Data
	Master vault.Master // opens the vault

	StoreURL string         // s3://… or, where no site pulls through it, file://…
	Store    bucket.Options // without credentials: those come from Env, else from the vault's secret "s3"

	Cluster       *Cluster // nil: the Core's own bus, at Addr
	Addr          string   // host:port of the bus; port 0 takes a free one
	WebSocketAddr string   // host:port of its second door; empty: none

	ConsoleURL string // https://host[:port]; empty: there is no console

	Version  string              // of this program
	Env      func(string) string // nil: no environment
	Now      func() time.Time    // required
	Rehearse string              // see window.ParseMotion; empty: this is no rehearsal

	Beat   time.Duration // between a site's signs of life; 0: 1 minute
	Silent time.Duration // without one, a site is silent; 0: 5 minutes
	Poll   time.Duration // between looks at the store for halts, and for releases that others published; 0: 15 seconds

	OnEvent func(Event)             // for the process's log; called by many goroutines. Nil: none
	BusLog  func(bus.Level, string) // see bus.ServerOptions.Log

	wrapStore func(bucket.Store) bucket.Store // for tests
}

// Settings are what Reload can change.
type Settings struct {
	Fleet     *fleet.Fleet
	URLs      []string // that sites dial: tls://host:4222, wss://host. None: the listeners' own addresses
	Retention ledger.Retention
	Alerts    Alerts
	Prices    schedule.Prices  // for Plan
	Currency  string           // of Prices
	SignIn    *signin.Settings // nil: nobody signs in through an identity provider

	nights *nights.Table // of Fleet
}

// WithActor tells, for the audit, on whose behalf a method of Core is called.
// Without it, it is the Core itself.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

type actorKey struct{}

// coreActor is the actor of the Core's own acts.
const coreActor = "core"

func actorOf(ctx context.Context) string {
	if who, ok := ctx.Value(actorKey{}).(string); ok && who != "" {
		return who
	}
	return coreActor
}
