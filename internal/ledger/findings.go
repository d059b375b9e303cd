package ledger

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/runs"
)

// Finding is the latest result of a run at a site, unless a later attestation
// has refuted it: a finding stands until the site has proven its release again.
type Finding struct {
	Domain, Site, Channel string
	Run                   RunID
	State                 runs.State // how that run ended; empty: it has not
	At                    time.Time
	Path, Outcome, Cause  string // empty with a finding about the whole channel
	// Unnamed: the run found more than the exceptions that the ledger still has.
	Unnamed bool
}

// standing joins a run r with the holding that could refute it, and keeps it
// only if that does not: the last attestation is verified and of a later run.
const standing = ` LEFT JOIN holdings h ON h.domain = r.domain AND h.site = r.site AND h.channel = r.channel LEFT JOIN runs p ON p.id = h.run
	WHERE r.site <> '' AND NOT (coalesce(h.verified, 0) > 0 AND h.verified = h.attested AND coalesce(p.seq, 0) >= r.seq)`

// FindingsOf lists the newest standing finding of each site about a path of a
// channel.
func (l *Ledger) FindingsOf(ctx context.Context, channel, path string) ([]Finding, error) {
	list, err := many(ctx, l.read, fmt.Sprintf("find what was found of %q", path), func(s scanner, f *Finding) error {
		f.Channel, f.Path = channel, path
		return s.Scan(&f.Domain, &f.Site, blob{f.Run[:]}, &f.State, moment{&f.At}, &f.Outcome, &f.Cause)
	}, `SELECT r.domain, r.site, r.id, r.state, x.last, x.outcome, x.cause FROM exceptions x JOIN runs r ON r.id = x.run`+standing+
		` AND x.path = ? AND x.channel = ?`, path, channel)
	return list, err
}

// Findings lists, for each site and channel of the filter, the newest run that
// ended in the given state and stands.
func (l *Ledger) Findings(ctx context.Context, state runs.State, f Filter) ([]Finding, error) {
	c := clause{}
	for _, t := range []struct{ column, value string }{{"domain", f.Domain}, {"site", f.Site}, {"channel", f.Channel}} {
		if t.value != "" {
			c.add("r."+t.column+" = ?", t.value)
		}
	}
	query := `SELECT r.domain, r.site, r.channel, r.id, r.state, r.finished, r.cause,
		(SELECT count(*) FROM exceptions x WHERE x.domain = r.domain AND x.site = r.site AND x.run = r.id) < max(r.failed + r.differs, 1) FROM runs r` + standing + ` AND r.state = ?`
	for _, t := range c.terms {
		query += " AND " + t
	}
	query += ` AND r.seq = (SELECT max(q.seq) FROM runs q WHERE q.domain = r.domain AND q.site = r.site AND q.channel = r.channel AND q.state = r.state)`
	return many(ctx, l.read, "find what sites found", func(s scanner, f *Finding) error {
		return s.Scan(&f.Domain, &f.Site, &f.Channel, blob{f.Run[:]}, &f.State, moment{&f.At}, &f.Cause, &f.Unnamed)
	}, query, append([]any{string(state)}, c.args...)...)
}
