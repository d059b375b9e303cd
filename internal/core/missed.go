package core

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"nightferry/internal/heads"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

const (
	// missedAfter is how long after a window's end a site has to tell of a run.
	missedAfter = 10 * time.Minute
	// missedSince is how far back windows are looked at: more than a Core is
	// ever restarted for, and less than logs are kept.
	missedSince = 20 * time.Hour
)

// watch finds what no message reports: lost runs, missed windows and sites that
// are late.
type watch struct {
	ledger   runRecords
	settings *atomic.Pointer[Settings]
	fleet    *sites
	newest   *heads.Service
	notices  *notices
	clock    *clocks
	now      func() time.Time // this machine's
	ended    func()           // a run has ended, so that a log is to be written
	holdings func(context.Context, ledger.Filter) (map[query.Row]ledger.Holding, error)
	sweep    func() // ends incidents of what is no longer configured
}

// runRecords reads runs, and ends them. *ledger.Ledger is one.
type runRecords interface {
	Append(ctx context.Context, domain, site string, events []ledger.Event) (ledger.Committed, error)
	Run(ctx context.Context, id ledger.RunID) (ledger.Run, error)
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
}

// noteMissed records, for each window that ended without a run although the
// site lacked a release, a run that was missed. It keeps nothing itself: the
// runs in the ledger tell what was recorded before.
func (wt *watch) noteMissed(ctx context.Context) error {
	err := wt.noteMissedOnce(ctx)
	if err != nil && ctx.Err() == nil {
		wt.notices.LedgerFailed(err)
	}
	return err
}

func (wt *watch) noteMissedOnce(ctx context.Context) error {
	s, now := wt.settings.Load(), wt.clock.wallTime()
	if !s.nights.Any() {
		return nil
	}
	held, err := wt.holdings(ctx, ledger.Filter{})
	if err != nil {
		return err
	}
	for i := range s.Fleet.Sites {
		site := &s.Fleet.Sites[i]
		a := wire.Address{Domain: site.Domain, Site: site.Name}
		x := wt.fleet.findSite(a)
		if x == nil {
			continue
		}
		x.mu.Lock()
		id, seen := x.identity, x.seen
		x.mu.Unlock()
		if id == nil {
			continue
		}
		for _, p := range site.Placements {
			rule, ok := s.nights.Rule(site.Name, p.Channel)
			rel, published := wt.newest.Of(p.Channel)
			if !ok || !published {
				continue
			}
			w, ok := lastEnded(now, wt.clock.missedAfter(), s.nights.Place(site.Name), rule)
			if !ok || !rel.Published.Before(w.Start) || !id.Enrolled.Before(w.Start) {
				continue
			}
			h := held[query.Row{Address: a, Channel: p.Channel}]
			if h.Number == rel.Number && h.Release == rel.Digest && h.Since.Before(w.End) {
				continue
			}
			runs, err := wt.ledger.Runs(ctx, ledger.RunFilter{Domain: a.Domain, Site: a.Site, Channel: p.Channel, Since: w.Start.Add(-24 * time.Hour), Limit: 100})
			if err != nil {
				return err
			}
			if ranIn(runs, w) {
				continue
			}
			why := fmt.Sprintf("the window of %s to %s ended and the site reported no run", w.Start.Format("2006-01-02 15:04"), w.End.Format("15:04 MST"))
			if seen = wt.clock.motion.At(seen); seen.Before(w.End) {
				why += ": it was last heard " + stampOr(seen)
			}
			if err := wt.recordMissed(ctx, a, p.Channel, w, rel, h.Number, why+"; it tries in its next window"); err != nil {
				return err
			}
		}
	}
	return nil
}

func stampOr(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

// lastEnded is the newest window that a site should have told of by now.
func lastEnded(now time.Time, after time.Duration, at window.Place, r window.Rule) (last window.Window, ok bool) {
	for _, w := range window.Between(now.Add(-missedSince), now, at, r) {
		if end := w.End; end.Add(after).Before(now) && end.After(now.Add(-missedSince)) {
			last, ok = w, true
		}
	}
	return last, ok
}

// ranIn reports whether a run lay, at least partly, in the window; one that was
// recorded as missed counts too.
func ranIn(runs []ledger.Run, w window.Window) bool {
	for _, r := range runs {
		if r.Started.Before(w.End) && (r.Finished.IsZero() || !r.Finished.Before(w.Start)) {
			return true
		}
	}
	return false
}

func (wt *watch) recordMissed(ctx context.Context, a wire.Address, channel string, w window.Window, rel ledger.Release, holds trust.ReleaseNumber, why string) error {
	var id ledger.RunID
	rand.Read(id[:]) // never fails (crypto/rand)
	start := &ledger.Start{Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, Parent: holds, Trigger: "window"}
	_, err := wt.ledger.Append(ctx, a.Domain, a.Site, []ledger.Event{
		{Run: id, Channel: channel, At: w.Start, Start: start},
		{Run: id, Channel: channel, At: w.End, Finish: &ledger.Finish{State: runs.Missed, Cause: why}},
	})
	if err != nil {
		return err
	}
	wt.ended()
	if run, err := wt.ledger.Run(ctx, id); err == nil {
		wt.notices.emitEvent(Event{Kind: RunEnded, Domain: a.Domain, Site: a.Site, Channel: channel, Run: id.String(), Text: string(run.State), Ended: &run})
	}
	return nil
}
