package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/runs"
)

// Finding is the latest result of a run at a site. It stands until a later attestation refutes it.
type Finding struct {
	Domain, Site, Channel string
	Run                   RunID
	State                 runs.State // how the run ended; empty: it has not ended
	At                    time.Time
	Path, Cause           string // Path and Outcome are empty if the finding is about the whole channel
	Outcome               runs.Outcome
	// Unnamed: the run found more files than the ledger still lists as exceptions.
	Unnamed bool
}

// standing joins a run r with the site's holding. It drops r if a verified attestation of r or a later run refutes it.
const standing = ` LEFT JOIN holdings h ON h.domain = r.domain AND h.site = r.site AND h.channel = r.channel LEFT JOIN runs p ON p.id = h.run
	WHERE r.site <> '' AND NOT (coalesce(h.verified, 0) > 0 AND h.verified = h.attested AND coalesce(p.seq, 0) >= r.seq)`

// FindingsOf lists each site's newest standing finding about a path of a channel.
func (l *Ledger) FindingsOf(ctx context.Context, channel, path string) ([]Finding, error) {
	list, err := queryAll(ctx, l.db.read, fmt.Sprintf("read the findings of %q", path), func(s scanner, f *Finding) error {
		f.Channel, f.Path = channel, path
		return s.Scan(&f.Domain, &f.Site, blob{f.Run[:]}, &f.State, moment{&f.At}, &f.Outcome, &f.Cause)
	}, `SELECT r.domain, r.site, r.id, r.state, x.last, x.outcome, x.cause FROM exceptions x JOIN runs r ON r.id = x.run`+standing+
		` AND x.path = ? AND x.channel = ?`, path, channel)
	return list, err
}

// Findings lists, for each site and channel that matches the filter, the newest standing run that ended in one of the
// states.
func (l *Ledger) Findings(ctx context.Context, f Filter, states ...runs.State) ([]Finding, error) {
	c := clause{}
	for _, t := range []struct{ column, value string }{{"domain", f.Domain}, {"site", f.Site}, {"channel", f.Channel}} {
		if t.value != "" {
			c.addTerm("r."+t.column+" = ?", t.value)
		}
	}
	query := `SELECT r.domain, r.site, r.channel, r.id, r.state, r.finished, r.cause,
		(SELECT count(*) FROM exceptions x WHERE x.domain = r.domain AND x.site = r.site AND x.run = r.id) < max(r.failed + r.differs, 1) FROM runs r` + standing + ` AND ` + isOneOf("r.state", states)
	for _, t := range c.terms {
		query += " AND " + t
	}
	query += ` AND r.seq = (SELECT max(q.seq) FROM runs q WHERE q.domain = r.domain AND q.site = r.site AND q.channel = r.channel AND ` + isOneOf("q.state", states) + `)`
	return queryAll(ctx, l.db.read, "find what sites found", func(s scanner, f *Finding) error {
		return s.Scan(&f.Domain, &f.Site, &f.Channel, blob{f.Run[:]}, &f.State, moment{&f.At}, &f.Cause, &f.Unnamed)
	}, query, append(append(stateArgs(states), c.args...), stateArgs(states)...)...)
}

// isOneOf is the condition that a column has one of n values, which stateArgs returns.
func isOneOf(column string, states []runs.State) string {
	return column + " IN (?" + strings.Repeat(", ?", len(states)-1) + ")"
}

func stateArgs(states []runs.State) (args []any) {
	for _, s := range states {
		args = append(args, string(s))
	}
	return args
}
