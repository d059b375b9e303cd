// Package query answers questions about the fleet: its status, its sites and runs,
// where a file is, why a site is behind, and what the coming nights will bring.
// It reads and decides nothing.
package query

import (
	"context"
	"io"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/measure"
	"nightferry/internal/nights"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/runs"
	"nightferry/internal/schedule"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Runs reads runs. *ledger.Ledger is one.
type Runs interface {
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
	FindRuns(ctx context.Context, id string) ([]ledger.Run, error)
	Release(ctx context.Context, channel string, number trust.ReleaseNumber) (ledger.Release, error)
}

// Proofs reads what sites have attested, and what contradicts that. *ledger.Ledger
// is one.
type Proofs interface {
	Holdings(ctx context.Context, f ledger.Filter) ([]ledger.Holding, error)
	Findings(ctx context.Context, f ledger.Filter, states ...runs.State) ([]ledger.Finding, error)
	FindingsOf(ctx context.Context, channel, path string) ([]ledger.Finding, error)
}

// Records reads the rest. *ledger.Ledger is one.
type Records interface {
	Revision(ctx context.Context) (uint64, error)
	Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error)
	Exceptions(ctx context.Context, f ledger.Filter) ([]ledger.Exception, error)
}

// Incidents lists incidents. *incident.Service is one.
type Incidents interface {
	Has(kind kinds.Kind, what string, at wire.Address) bool
	List(ctx context.Context, all bool) ([]ledger.Incident, error)
}

// Sites knows what sites have sent.
type Sites interface {
	Site(a wire.Address) (x Site, known bool)
	Halted() int // number of sites that were halted on the site itself
}

// Site is what is known of one site.
type Site struct {
	Connected bool // a message from it arrived recently
	Seen      time.Time
	Identity  *ledger.Identity // nil: it has none
	Sighting  ledger.Sighting
	Halted    *wire.Stop          // given on the site itself; nil: none
	Progress  map[string]Progress // of runs under way, by channel
	Stalled   map[string]Movement // of runs that do not wait and in which nothing moves, by channel
	Waits     map[string]Waiting  // by channel, as the last heartbeat has them
	Refused   string              // why the bus refuses its agent; empty: it does not, as far as is known
	RefusedAt time.Time
}

// isContested reports whether two machines use the site's identity.
func (x *Site) isContested() bool { return x.Identity != nil && !x.Identity.Contested.IsZero() }

func isEnrolled(s Sites, a wire.Address) bool {
	x, _ := s.Site(a)
	return x.Identity != nil
}

// Progress is that of a run under way.
type Progress struct {
	Run ledger.RunID
	runs.Progress
}

// Movement is when something last moved in a run under way: it began, or its progress was another one than before. At is by
// the Core's own clock.
type Movement struct {
	Run ledger.RunID
	At  time.Time
}

// Newest knows each channel's newest release.
type Newest interface {
	Of(channel string) (ledger.Release, bool)
	List() []ledger.Release
}

// Logs reads log files. *record.Logs is one.
type Logs interface {
	List(f record.Filter, fn func(record.Log) error) error
	Scan(path string, fn func(record.File) error) (record.Header, record.End, error)
	Open(path string) (io.ReadSeekCloser, error)
}

// RunLog names what a run did with each file. *reports.Renderer is one.
type RunLog interface {
	Header(ctx context.Context, run *ledger.Run) record.Header
	Lines(ctx context.Context, run *ledger.Run, all bool, fn func(record.File) error) error
	Untold(run *ledger.Run, e *manifest.Entry) record.File // the line of an entry without an outcome
}

// World is the configuration in force.
type World struct {
	Fleet    *fleet.Fleet
	Nights   *nights.Table
	Prices   schedule.Prices
	Currency string
}

// Wanted is what the Core states to a site.
type Wanted struct {
	Revision   uint64
	Limit      string // an operator's timetable; empty: none
	LimitUntil int64  // Unix seconds of the calendar; 0: until it is lifted
}

// Self is what the Core says of itself.
type Self struct {
	Version, Repo string
	Store         string // without credentials
	Rehearsal     *Rehearsal
	StoreRead     time.Time
	Unread        string
}

// Options of a Service. All are required.
type Options struct {
	Runs      Runs
	Proofs    Proofs
	Records   Records
	Measured  measure.Records
	Incidents Incidents
	Sites     Sites
	Newest    Newest
	Logs      Logs
	RunLog    RunLog
	Releases  *releases.Reader

	World  func() World
	Wanted func(a wire.Address) Wanted
	Halts  func() *halt.Orders
	Core   func() Self
	Now    func() time.Time // the store's
	Wall   func() time.Time // the calendar's
}

// Service is safe for concurrent use.
type Service struct{ o Options }

// New returns a Service.
func New(o Options) *Service { return &Service{o} }

// Row names a channel at a site.
type Row struct {
	wire.Address
	Channel string
}
