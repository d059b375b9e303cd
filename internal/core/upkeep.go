package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// upkeep does once a day what has to be done, when it is due.
func (c *Core) upkeep(ctx context.Context) {
	now := c.o.Now()
	if p := c.cert.Load(); p != nil && p.Leaf != nil && p.Leaf.NotAfter.Sub(now) < certLife/3 {
		if err := c.newCert(); err != nil {
			c.trouble("certificate", err)
		} else {
			c.say(Event{Kind: Upkeep, Text: "the bus's certificate was renewed"})
		}
	}
	now = c.motion.At(now)
	due := func(last time.Time) bool { return now.Sub(last) >= 23*time.Hour+30*time.Minute }
	if due(c.lastResign) && c.resign(ctx) {
		c.lastResign = now // else it is tried again with the next look at what is due
	}
	if !due(c.lastPurge) {
		return
	}
	c.lastPurge = now
	if err := c.Purge(ctx); err != nil {
		c.trouble("upkeep", err)
	}
}

// resign signs the heads again, so that none expires while nothing is
// published: those that name the release that this Core has adopted, and no
// others. What somebody else has put there the next look adopts, or refuses. It
// is false when one has failed: that is an incident until it is signed, whatever
// else of the store works.
func (c *Core) resign(ctx context.Context) (ok bool) {
	ok = true
	for _, ch := range c.settings.Load().Fleet.Channels {
		rel, known := c.newest.of(ch.Name)
		if !known {
			continue
		}
		_, err := c.repo.Load().Renew(ctx, ch.Name, c.keys.Load().release, rel.Number, rel.Digest)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			c.alarms.over(Store, ch.Name, wire.Address{})
			continue
		case !errors.Is(err, repo.ErrConflict):
			ok = false
			c.alarms.raise(Store, ch.Name, wire.Address{}, fmt.Sprintf("channel %s: its head could not be signed again: %v; it is tried again every hour", ch.Name, err))
		}
		c.trouble("resign", err)
	}
	return ok
}

// Purge removes the logs and the ledger's rows that are older than the
// retention, and reports what it removed.
func (c *Core) Purge(ctx context.Context) error {
	keep := c.settings.Load().Retention
	now := c.wall()
	text := ""
	if keep.Logs > 0 {
		gone, err := c.logs.Purge(now, keep.Logs)
		if err != nil {
			return err
		}
		text = fmt.Sprintf("%d log files of %d bytes", gone.Files, gone.Bytes)
	}
	rows, err := c.ledger.Prune(ctx, keep)
	if err != nil {
		return err
	}
	if text != "" {
		text += "; "
	}
	text += fmt.Sprintf("from the ledger %d events, %d exceptions, %d runs, %d attestations, %d incidents, %d halts, %d tokens, %d identities",
		rows.Events, rows.Exceptions, rows.Runs, rows.Attestations, rows.Incidents, rows.Halts, rows.Tokens, rows.Identities)
	c.shelf.forget(func(channel string, number uint64) bool {
		rel, ok := c.newest.of(channel)
		return !ok || number+8 > rel.Number
	})
	if err := c.pages.prune(c.o.Now()); err != nil {
		return err
	}
	c.say(Event{Kind: Upkeep, Text: "removed: " + text})
	return c.ledger.Audit(ctx, ledger.Deed{Who: actor(ctx), What: "purge", Object: "records", Detail: text})
}

// Repo is the repository that the Core publishes into.
func (c *Core) Repo() trust.RepoID { return c.repo.Load().ID() }

// Held returns the releases that sites hold or should hold, and the oldest that
// the configuration retains, by channel: what gc must not remove, nor what is
// newer.
func (c *Core) Held(ctx context.Context) (map[string]map[uint64]bool, error) {
	out := map[string]map[uint64]bool{}
	add := func(channel string, number uint64) {
		if number == 0 {
			return
		}
		if out[channel] == nil {
			out[channel] = map[uint64]bool{}
		}
		out[channel][number] = true
	}
	rows, err := c.ledger.AllDesired(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range rows {
		add(d.Channel, d.Number)
	}
	open, err := c.ledger.Runs(ctx, ledger.RunFilter{Open: true, Limit: 100_000})
	if err != nil {
		return nil, err
	}
	for _, r := range open {
		if r.Site != "" {
			add(r.Channel, r.Number) // it stages that
		}
	}
	held, err := c.ledger.Holdings(ctx, ledger.Filter{})
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		add(h.Channel, h.Number)
	}
	for _, ch := range c.settings.Load().Fleet.Channels {
		oldest, err := c.retains(ctx, &ch)
		if err != nil {
			return nil, err
		}
		add(ch.Name, oldest)
	}
	return out, nil
}

// retains returns the oldest release of a channel that its keep and keep_within
// let stay; 0: there is none.
func (c *Core) retains(ctx context.Context, ch *fleet.Channel) (uint64, error) {
	newest, ok := c.newest.of(ch.Name)
	if !ok {
		return 0, nil
	}
	oldest := newest.Number - min(newest.Number-1, uint64(max(ch.Keep, 1)-1))
	if ch.KeepWithin <= 0 {
		return oldest, nil
	}
	list, err := c.ledger.Releases(ctx, ch.Name, 0)
	if err != nil {
		return 0, err
	}
	since := c.wall().Add(-ch.KeepWithin)
	for i := 1; i < len(list) && !list[i-1].Published.Before(since); i++ { // it was the newest until the one before it in the list came
		oldest = min(oldest, list[i].Number)
	}
	return oldest, nil
}
