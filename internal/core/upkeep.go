package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/fleet"
	"nightferry/internal/heads"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/lending"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// daily is the period of daily work. It is a little under a day, so that no day is left out.
const daily = 23*time.Hour + 30*time.Minute

// Caretaker does the daily work: it removes what is old, signs heads again and checks
// the bucket.
type Caretaker struct {
	settings    *atomic.Pointer[Settings]
	ledger      *ledger.Ledger
	logs        *record.Logs
	storage     *storage
	newest      *heads.Service
	link        *busLink
	lending     *lending.Service
	releases    *releases.Reader
	notices     *notices
	clock       *clocks
	endLostRuns func(context.Context) error
	// checkIncarnation fails if another Core has taken over, or if that is unknown.
	checkIncarnation func(context.Context) error

	healing               atomic.Bool    // something was published since the bucket was checked
	lastResign, lastPurge clock.Calendar // used by one goroutine at a time
}

// runDaily does the daily work that is due.
func (u *Caretaker) runDaily(ctx context.Context) error {
	now, err := u.clock.agreedTime(ctx) // first, since it also reads the store's time
	if p := u.link.cert.Load(); p != nil && p.Leaf != nil && p.Leaf.NotAfter.Sub(u.clock.now()) < certLife/3 {
		if err := u.link.newCert(); err != nil {
			u.notices.ReportFailure("certificate", err)
		} else {
			u.notices.ReportSuccess("certificate")
			u.notices.emitEvent(Event{Kind: Upkeep, Text: "the bus's certificate was renewed"})
		}
	}
	if lost := u.endLostRuns(ctx); lost != nil && ctx.Err() == nil {
		u.notices.LedgerFailed(lost)
	}
	if err != nil {
		if ctx.Err() == nil {
			u.notices.ReportFailure("clock", err)
		}
		return err
	}
	if err := u.checkIncarnation(ctx); errors.As(err, new(*incarnation.OlderError)) {
		return nil // it has an incident of its own
	} else if err != nil {
		u.notices.ReportFailure("store", err)
		return err
	}
	if clock.Due(u.lastResign, now, daily) && u.resignHeads(ctx) {
		u.lastResign = now // otherwise the next turn tries again
	}
	if !clock.Due(u.lastPurge, now, daily) {
		return nil
	}
	u.lastPurge = now
	if err := u.Purge(ctx); err != nil {
		u.notices.ReportFailure("upkeep", err)
		return err
	}
	u.notices.ReportSuccess("upkeep")
	return nil
}

// resignHeads signs the heads again, so that none expires if no release is published. It signs only
// heads that name the release that this Core has adopted. If another writer has changed a head, the
// next poll adopts or refuses it. If a head cannot be signed, resign returns false and an incident
// stays open until it is signed.
func (u *Caretaker) resignHeads(ctx context.Context) (ok bool) {
	ok = true
	for _, ch := range u.settings.Load().Fleet.Channels {
		rel, known := u.newest.Of(ch.Name)
		if !known {
			continue
		}
		if u.checkIncarnation(ctx) != nil {
			return false
		}
		_, err := u.storage.repo.Load().Publisher(u.storage.keys.Load().release).Renew(ctx, ch.Name, rel.Number, rel.Digest)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			u.notices.incidents.Resolve(kinds.Store, ch.Name, wire.Address{})
			continue
		case !errors.Is(err, repo.ErrConflict):
			ok = false
			u.notices.incidents.Raise(kinds.Store, ch.Name, wire.Address{}, fmt.Sprintf("channel %s: its head could not be signed again: %v; it is tried again every hour", ch.Name, err))
		}
		u.notices.ReportFailure("resign", err)
	}
	return ok
}

// Purge removes logs and ledger rows that are older than the retention, as far as the clocks agree,
// and reports what it removed. It continues after a failure and returns all errors.
func (u *Caretaker) Purge(ctx context.Context) error {
	now, err := u.clock.agreedTime(ctx)
	if err == nil {
		err = u.checkIncarnation(ctx)
	}
	if err != nil {
		return err
	}
	if now, err = u.ledger.BeginPurge(ctx, now); err != nil {
		return err
	}
	s := u.settings.Load()
	keep := s.Retention
	for _, ch := range s.Fleet.Channels {
		keep.Releases = max(keep.Releases, ch.KeepWithin)
	}
	text := ""
	if keep.Logs > 0 {
		gone, logsErr := u.logs.Purge(now, keep.Logs)
		err = errors.Join(err, logsErr)
		text = fmt.Sprintf("%d log files of %d bytes", gone.Files, gone.Bytes)
	}
	rows, rowsErr := u.ledger.Prune(ctx, now, keep)
	err = errors.Join(err, rowsErr)
	if text != "" {
		text += "; "
	}
	text += "from the ledger " + rows.String()
	err = errors.Join(err, u.ledger.Shrink(ctx))
	u.lending.Forget(func(channel string, number trust.ReleaseNumber) bool {
		rel, ok := u.newest.Of(channel)
		return !ok || number+8 > rel.Number
	})
	err = errors.Join(err, u.releases.Prune(u.clock.now()))
	u.notices.emitEvent(Event{Kind: Upkeep, Text: "removed: " + text})
	return errors.Join(err, u.ledger.Audit(ctx, ledger.Deed{Who: actorOf(ctx), What: "purge", Object: "records", Detail: text}))
}

// Repo returns the ID of the repository that the Core publishes into.
func (c *Core) Repo() trust.RepoID { return c.storage.repo.Load().ID() }

// forgetAfter is how long a silent site still holds its releases. If the site returns later, it
// pulls the newest release, whatever gc has removed.
const forgetAfter = 30 * 24 * time.Hour

// Held returns, by channel and number, who holds a release that gc must not remove,
// nor what is newer: sites that hold, stage or should hold it, and the configuration
// for the oldest that it retains. A site counts while it is configured, enrolled, and
// was heard within the last 30 days. While the clocks differ, none of this is known.
func (u *Caretaker) Held(ctx context.Context) (map[string]map[trust.ReleaseNumber][]string, error) {
	now, err := u.clock.agreedTime(ctx)
	if err == nil {
		err = u.checkIncarnation(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("which releases are retained: %w", err)
	}
	counts, err := reportingSites(ctx, u.ledger, u.settings.Load().Fleet, u.clock.now().Add(-forgetAfter))
	if err != nil {
		return nil, err
	}
	out := map[string]map[trust.ReleaseNumber][]string{}
	add := func(channel string, number trust.ReleaseNumber, who string) {
		if number == 0 {
			return
		}
		if out[channel] == nil {
			out[channel] = map[trust.ReleaseNumber][]string{}
		}
		if !slices.Contains(out[channel][number], who) {
			out[channel][number] = append(out[channel][number], who)
		}
	}
	site := func(domain, name, channel string, number trust.ReleaseNumber) {
		if counts[wire.Address{Domain: domain, Site: name}] {
			add(channel, number, "site "+name)
		}
	}
	stored, err := u.ledger.DesiredState(ctx, "", "")
	if err != nil {
		return nil, err
	}
	for _, d := range stored.Rows {
		site(d.Domain, d.Site, d.Channel, d.Number)
	}
	open, err := u.ledger.Runs(ctx, ledger.RunFilter{Open: true, Limit: 100_000})
	if err != nil {
		return nil, err
	}
	for _, r := range open {
		site(r.Domain, r.Site, r.Channel, r.Number) // the site stages that release
	}
	held, err := u.ledger.Holdings(ctx, ledger.Filter{})
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		site(h.Domain, h.Site, h.Channel, h.Number)
	}
	for _, ch := range u.settings.Load().Fleet.Channels {
		oldest, err := u.oldestRetained(ctx, &ch, now)
		if err != nil {
			return nil, err
		}
		add(ch.Name, oldest, "the configuration")
	}
	return out, nil
}

// reportingSites returns the sites that are configured, enrolled, and have sent a message since the given
// time.
func reportingSites(ctx context.Context, l *ledger.Ledger, f *fleet.Fleet, since time.Time) (map[wire.Address]bool, error) {
	ids, err := l.Sites.Identities(ctx, false)
	if err != nil {
		return nil, err
	}
	seen, err := l.Sites.Sightings(ctx)
	if err != nil {
		return nil, err
	}
	heard := map[wire.Address]time.Time{}
	for _, s := range seen {
		heard[wire.Address{Domain: s.Domain, Site: s.Site}] = s.Seen
	}
	out := map[wire.Address]bool{}
	for _, id := range ids {
		at := wire.Address{Domain: id.Domain, Site: id.Site}
		s := f.Site(id.Site)
		out[at] = s != nil && s.Domain == id.Domain && (id.Enrolled.After(since) || heard[at].After(since))
	}
	return out, nil
}

// oldestRetained returns the oldest release of a channel that keep and keep_within retain; 0: there is
// none.
func (u *Caretaker) oldestRetained(ctx context.Context, ch *fleet.Channel, now clock.Calendar) (trust.ReleaseNumber, error) {
	newest, ok := u.newest.Of(ch.Name)
	if !ok {
		return 0, nil
	}
	oldest := newest.Number - min(newest.Number-1, trust.ReleaseNumber(max(ch.Keep, 1)-1))
	if ch.KeepWithin <= 0 {
		return oldest, nil
	}
	list, err := u.ledger.Releases(ctx, ch.Name, 0)
	if err != nil {
		return 0, err
	}
	since := now.Time().Add(-ch.KeepWithin)
	for i := 1; i < len(list) && !list[i-1].Published.Before(since); i++ { // a release was the newest until its successor, which precedes it in the list
		oldest = min(oldest, list[i].Number)
	}
	return oldest, nil
}
