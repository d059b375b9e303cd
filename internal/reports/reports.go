// Package reports commits what sites report about their runs, and writes the log
// files of ended runs.
//
// Service commits a batch of events in one transaction of the ledger, with the
// incidents that the events open and end, and returns the effects as values.
// Renderer derives each log file from the ledger, so that a crash loses and
// doubles nothing.
package reports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/measure"
	"nightferry/internal/releases"
	"nightferry/internal/text"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// MaxRunText bounds the cause of a run's end, in bytes.
const MaxRunText = 4 << 10

// Ledger keeps runs. *ledger.Ledger is one.
type Ledger interface {
	Commit(ctx context.Context, b ledger.Batch) (ledger.Committed, error)
	Skip(ctx context.Context, domain, site string, generation [16]byte, upto uint64) error
	Run(ctx context.Context, id ledger.RunID) (ledger.Run, error)
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
	Exceptions(ctx context.Context, f ledger.Filter) ([]ledger.Exception, error)
}

// Published knows the releases. *ledger.Ledger is one.
type Published interface {
	Release(ctx context.Context, channel string, number trust.ReleaseNumber) (ledger.Release, error)
}

// Incidents opens and ends incidents. *incident.Service is one.
type Incidents interface {
	Raise(kind kinds.Kind, what string, at wire.Address, text string)
	Resolve(kind kinds.Kind, what string, at wire.Address)
	Noted(key string, at wire.Address, open bool)
	ResolveExcept(keep func(kind kinds.Kind, what string, at wire.Address) bool)
}

// Notices report failures.
type Notices interface {
	ReportFailure(what string, err error)
	LedgerFailed(err error)
	LedgerWorks()
	RefusedAttestation(ctx context.Context, a wire.Address, why string)
}

// Options of a Service. All are required.
type Options struct {
	Ledger    Ledger
	Published Published
	Measured  measure.Records
	Incidents Incidents
	Notices   Notices
	Releases  *releases.Reader

	Now      func() time.Time            // this machine's
	Wall     func() time.Time            // the calendar's
	Calendar func(t time.Time) time.Time // the calendar's time at a moment of the real one
	Fleet    func() *fleet.Fleet
	Repo     func() trust.RepoID
	// GaveNonce reports whether the Core issued a nonce to a site for a release.
	GaveNonce func(a wire.Address, channel string, number trust.ReleaseNumber, nonce []byte) bool
	// Contested reports whether two machines use the identity of a site, so that nothing that it attests counts.
	Contested func(a wire.Address) bool
	// PanicSite returns where the panic that is being recovered from happened.
	PanicSite func() string
}

// Effects are what a batch of events led to.
type Effects struct {
	Refused string // why the whole report is invalid; empty: it is valid

	Ack    *wire.Ack // the answer; nil: none
	Number uint64    // of the answer

	Returned         bool     // of ledger.Committed
	Opened, Resolved []string // keys of incidents
	Started          []Started
	Ended            []ledger.Run
}

// Started is a run that a site has started.
type Started struct {
	Run     ledger.RunID
	Channel string
}

// Service is safe for concurrent use. Reports of one site must come one at a time.
type Service struct {
	o Options

	events, outcomes, commits, commitTime atomic.Int64

	mu   sync.Mutex
	gaps map[wire.Address]gap // of sites that insist on a gap
}

// gap is a gap in a site's sequence, and how often in a row the site reported it.
type gap struct {
	upto  uint64
	times int
}

// New returns a Service.
func New(o Options) *Service { return &Service{o: o, gaps: map[wire.Address]gap{}} }

// Counts are what a Service has committed.
type Counts struct {
	Events, Outcomes, Commits int64
	CommitTime                time.Duration
}

// Counts returns what was committed.
func (s *Service) Counts() Counts {
	return Counts{s.events.Load(), s.outcomes.Load(), s.commits.Load(), time.Duration(s.commitTime.Load())}
}

// Commit commits a report. It acknowledges events that were committed before again, and never
// events that are not durable.
func (s *Service) Commit(ctx context.Context, a wire.Address, key trust.Public, v *wire.Report) Effects {
	if len(v.Generation) != 16 || v.First == 0 {
		return Effects{Refused: "a report without a generation or a sequence"}
	}
	b := ledger.Batch{Domain: a.Domain, Site: a.Site, Generation: [16]byte(v.Generation), First: v.First}
	t := translator{by: s, ctx: ctx, at: a, key: key, about: map[ledger.RunID]releases.Key{}, find: s.o.Releases.Finder()}
	for i := range v.Events {
		b.Events = append(b.Events, t.translateEvent(&v.Events[i]))
		if t.outcomes > wire.MaxReported {
			return Effects{Refused: fmt.Sprintf("a report of more than %d outcomes", wire.MaxReported)}
		}
	}
	before := s.o.Now()
	done, err := s.o.Ledger.Commit(ctx, b)
	ack := &wire.Ack{Generation: v.Generation}
	missing := (*ledger.GapError)(nil)
	switch {
	case errors.As(err, &missing):
		if s.skipGap(ctx, a, b.Generation, missing) {
			return Effects{} // it will come again
		}
		ack.Want = missing.Want
		return Effects{Ack: ack, Number: missing.Want - 1}
	case errors.Is(err, ledger.ErrForeignRun):
		return Effects{Refused: err.Error()}
	case err != nil && ctx.Err() != nil:
		return Effects{}
	case err != nil:
		s.o.Notices.LedgerFailed(err)
		ack.Full = true
		return Effects{Ack: ack}
	}
	s.o.Notices.LedgerWorks()
	s.forgetGap(a)
	s.commits.Add(1)
	s.commitTime.Add(int64(s.o.Now().Sub(before)))
	s.events.Add(int64(done.Fresh))
	out := Effects{Ack: ack, Number: done.Last}
	if done.Fresh > 0 {
		s.outcomes.Add(t.outcomes)
		s.addEffects(ctx, a, &t, done, &out)
		return out
	}
	for key, open := range t.parts { // committed before, perhaps by a Core that stopped before it resolved the incidents
		if kind, what := kinds.CutKey(key); !open {
			s.o.Incidents.Resolve(kind, what, a)
		}
	}
	return out
}

// addEffects adds what a committed batch led to.
func (s *Service) addEffects(ctx context.Context, a wire.Address, t *translator, done ledger.Committed, out *Effects) {
	if done.NewGeneration { // a site that lost its state cannot report the end of its earlier problems
		s.o.Incidents.ResolveExcept(func(kind kinds.Kind, channel string, at wire.Address) bool {
			return at != a || !strings.HasPrefix(string(kind), string(kinds.SiteSays)+"-") ||
				slices.ContainsFunc(t.problems, func(p reportedProblem) bool { return p.kind == kind && p.channel == channel })
		})
	}
	for key, open := range t.parts {
		s.o.Incidents.Noted(key, a, open)
	}
	out.Returned, out.Opened, out.Resolved, out.Started = done.Returned, done.Opened, done.Resolved, t.started
	for _, id := range done.Finished {
		if run, err := s.o.Ledger.Run(ctx, id); err == nil {
			out.Ended = append(out.Ended, run)
		}
	}
}

// gapsBeforeSkip is how often a site must report the same gap before the Core accepts it.
const gapsBeforeSkip = 3

// skipGap gives up on events that the site no longer has. This happens if the ledger was restored from
// a backup: events acknowledged after the backup are then missing on both sides.
func (s *Service) skipGap(ctx context.Context, a wire.Address, generation [16]byte, missing *ledger.GapError) bool {
	s.mu.Lock()
	g := s.gaps[a]
	if g.upto != missing.Got {
		g = gap{upto: missing.Got}
	}
	g.times++
	s.gaps[a] = g
	s.mu.Unlock()
	if g.times < gapsBeforeSkip {
		return false
	}
	if err := s.o.Ledger.Skip(ctx, a.Domain, a.Site, generation, missing.Got); err != nil {
		s.o.Notices.LedgerFailed(err)
		return false
	}
	s.o.Incidents.Raise(kinds.Lost, "", a, fmt.Sprintf("the events %d to %d of site %s are in no ledger and no longer on the site: was the ledger restored from a backup?", missing.Want, missing.Got-1, a.Site))
	return true
}

// forgetGap drops the gap of a site.
func (s *Service) forgetGap(a wire.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gaps, a)
}

// maxText bounds a text that a site wrote, in bytes.
const maxText = 1 << 10

// clipText bounds a text that a site wrote.
func clipText(s string) string { return text.Bound(s, maxText) }
