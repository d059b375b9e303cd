package ledger

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const runColumns = `id, domain, site, channel, number, release, tree, parent, trigger, dry_run, started, finished, state, cause, files, bytes,
	added, changed, moved, repaired, deleted, unchanged, locked, failed, extra, differs, held, fetched, wire, attestation, rendered, late`

func scanRun(s scanner, r *Run) error {
	t := &r.Totals
	return s.Scan(blob{r.ID[:]}, &r.Domain, &r.Site, &r.Channel, &r.Number, digestBlob(&r.Release), digestBlob(&r.Tree), &r.Parent, &r.Trigger, &r.DryRun,
		moment{&r.Started}, moment{&r.Finished}, &r.State, &r.Cause, &t.Files, &t.Bytes, &t.Added, &t.Changed, &t.Moved, &t.Repaired, &t.Deleted,
		&t.Unchanged, &t.Locked, &t.Failed, &t.Extra, &t.Differs, &t.Held, &t.Fetched, &t.Wire, digestBlob(&r.Attestation), moment{&r.Rendered}, &r.Late)
}

// Run returns a run, or ErrNotFound.
func (l *Ledger) Run(ctx context.Context, id RunID) (Run, error) {
	return queryOne(ctx, l.db.read, fmt.Sprintf("find run %s", id), scanRun, "SELECT "+runColumns+" FROM runs WHERE id = ?", id[:])
}

// FindRuns returns up to 10 runs whose id starts with the hexadecimal digits of prefix.
func (l *Ledger) FindRuns(ctx context.Context, prefix string) ([]Run, error) {
	prefix = strings.ToLower(prefix)
	low, err1 := hex.DecodeString(padRunID(prefix, '0'))
	high, err2 := hex.DecodeString(padRunID(prefix, 'f'))
	if err1 != nil || err2 != nil || prefix == "" {
		return nil, fmt.Errorf("run %q: want 1 to 32 hexadecimal digits: %w", prefix, ErrNotFound)
	}
	return queryAll(ctx, l.db.read, fmt.Sprintf("find run %s", prefix), scanRun,
		"SELECT "+runColumns+" FROM runs WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 10", low, high)
}

// padRunID extends a prefix to the length of a run id. A prefix that is too long stays too long and matches no run.
func padRunID(prefix string, with byte) string {
	n := 2 * len(RunID{})
	if len(prefix) > n {
		return "x"
	}
	return prefix + strings.Repeat(string(with), n-len(prefix))
}

// clause collects the conditions of a query.
type clause struct {
	terms []string
	args  []any
}

func (c *clause) addTerm(term string, args ...any) {
	c.terms = append(c.terms, term)
	c.args = append(c.args, args...)
}

// addNames adds the conditions shared by most lists.
func (c *clause) addNames(domain, site, channel string) {
	for _, t := range []struct{ column, value string }{{"domain", domain}, {"site", site}, {"channel", channel}} {
		if t.value != "" {
			c.addTerm(t.column+" = ?", t.value)
		}
	}
}

func (c *clause) whereSQL() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// Runs lists runs, newest first.
func (l *Ledger) Runs(ctx context.Context, f RunFilter) ([]Run, error) {
	var c clause
	c.addNames(f.Domain, f.Site, f.Channel)
	if f.Core {
		c.addTerm("domain = '' AND site = ''")
	}
	if !f.After.IsZero() {
		c.addTerm("(started, seq) < (SELECT started, seq FROM runs WHERE id = ?)", f.After[:])
	}
	if f.State != "" {
		c.addTerm("state = ?", string(f.State))
	}
	if f.Open {
		c.addTerm("finished = 0")
	}
	from, to := rangeBounds(f.Since, f.Until)
	c.addTerm("started >= ? AND started < ?", from, to)
	return queryAll(ctx, l.db.read, "list runs", scanRun, "SELECT "+runColumns+" FROM runs"+c.whereSQL()+" ORDER BY started DESC, seq DESC LIMIT ?",
		append(c.args, rowLimit(f.Limit))...)
}

// Bounds of a page of events. A slow reader, such as a client of the local socket, must not occupy a connection while
// it reads.
const (
	pageEvents = 256
	pageBytes  = 4 << 20
)

// RunEvents calls fn with the run's events in order of occurrence. If fn returns an error, RunEvents stops and returns
// it. Only Run, Channel, Kind, At and Body are set. It reads page by page and holds no connection while fn runs. After
// MarkRendered has removed the events, RunEvents returns ErrRendered; fn may have received the first events by then.
func (l *Ledger) RunEvents(ctx context.Context, id RunID, fn func(Event) error) error {
	for after := int64(0); ; {
		page, last, err := l.eventPage(ctx, id, after)
		if err != nil {
			return fmt.Errorf("read the events of run %s: %w", id, err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
		after = last
	}
}

// eventPage reads the events after a row and returns the id of the last one read. An empty page is the end.
func (l *Ledger) eventPage(ctx context.Context, id RunID, after int64) (page []Event, last int64, err error) {
	type row struct {
		Event
		id       int64
		rendered bool
	}
	full, size := errors.New("page full"), 0
	err = queryEach(ctx, l.db.read, func(s scanner, r *row) error {
		r.Run = id
		return s.Scan(&r.rendered, &r.id, &r.Channel, &r.Kind, moment{&r.At}, &r.Body)
	}, func(r row) error {
		if r.rendered {
			return ErrRendered
		}
		if r.id == 0 {
			return nil // the run has no more events
		}
		page, last = append(page, r.Event), r.id
		if size += len(r.Body); size >= pageBytes {
			return full
		}
		return nil
	}, `SELECT r.rendered > 0, ifnull(e.id, 0), r.channel, ifnull(e.kind, 0), ifnull(e.at, 0), e.body FROM runs r LEFT JOIN events e ON e.run = r.seq AND e.id > ?
		WHERE r.id = ? ORDER BY e.id LIMIT ?`, after, id[:], pageEvents)
	if errors.Is(err, full) {
		err = nil
	}
	return page, last, err
}

// Unrendered lists finished runs whose log file is incomplete, oldest first.
func (l *Ledger) Unrendered(ctx context.Context) ([]Run, error) {
	return queryAll(ctx, l.db.read, "list runs without a log file", scanRun,
		"SELECT "+runColumns+" FROM runs WHERE finished > 0 AND rendered = 0 ORDER BY finished, seq")
}

// MarkRendered records that the run's log file is complete and durable, and deletes the run's events. It returns
// ErrNotFound if the run does not exist or has not finished.
func (l *Ledger) MarkRendered(ctx context.Context, id RunID) error {
	now := l.db.now()
	return l.db.makeChange(ctx, fmt.Sprintf("note the log file of run %s", id), func(x *tx) error {
		var seq int64
		if err := x.queryRow("UPDATE runs SET rendered = iif(rendered > 0, rendered, ?) WHERE id = ? AND finished > 0 RETURNING seq", toMicros(now), id[:]).Scan(&seq); err != nil {
			return err
		}
		return x.execSQL("DELETE FROM events WHERE run = ?", seq)
	})
}

// filterClause returns the conditions that exceptions and attestations share.
func (f Filter) filterClause(at, run string) clause {
	var c clause
	c.addNames(f.Domain, f.Site, f.Channel)
	if !f.Run.IsZero() {
		c.addTerm(run+" = ?", f.Run[:])
	}
	from, to := rangeBounds(f.Since, f.Until)
	c.addTerm(at+" >= ? AND "+at+" < ?", from, to)
	return c
}

// Exceptions lists files that failed, were locked or were repaired, newest report first. Filter.Run matches the run of
// the last report.
func (l *Ledger) Exceptions(ctx context.Context, f Filter) ([]Exception, error) {
	c := f.filterClause("last", "run")
	return queryAll(ctx, l.db.read, "list exceptions", func(s scanner, e *Exception) error {
		return s.Scan(&e.Domain, &e.Site, &e.Channel, &e.Path, &e.Outcome, &e.Cause, &e.Size, moment{&e.First}, moment{&e.Last}, &e.Count, blob{e.As[:]}, blob{e.Run[:]})
	}, "SELECT domain, site, channel, path, outcome, cause, size, first, last, count, as_run, run FROM exceptions"+
		c.whereSQL()+" ORDER BY last DESC, id DESC LIMIT ?", append(c.args, rowLimit(f.Limit))...)
}

// Attestations lists the sites' attestations, newest first.
func (l *Ledger) Attestations(ctx context.Context, f Filter) ([]Attestation, error) {
	c := f.filterClause("a.at", "r.id")
	return queryAll(ctx, l.db.read, "list attestations", func(s scanner, a *Attestation) error {
		return s.Scan(blob{a.Run[:]}, &a.Domain, &a.Site, &a.Channel, moment{&a.At}, blob{a.Nonce[:]}, &a.Number, digestBlob(&a.Release), digestBlob(&a.Tree),
			&a.Files, &a.Bytes, &a.Read, &a.Statted, moment{&a.OldestRead}, &a.Verified, digestBlob(&a.Digest), &a.Signed)
	}, `SELECT r.id, r.domain, r.site, r.channel, a.at, a.nonce, a.number, a.release, a.tree, a.files, a.bytes, a.read, a.statted, a.oldest_read,
		a.verified, a.digest, a.signed FROM attestations a JOIN runs r ON r.seq = a.run`+c.whereSQL()+" ORDER BY a.at DESC, a.id DESC LIMIT ?",
		append(c.args, rowLimit(f.Limit))...)
}

// Fills lists the targets in which a site has found content of a release, ordered by channel and target.
func (l *Ledger) Fills(ctx context.Context, domain, site string) ([]Fill, error) {
	return queryAll(ctx, l.db.read, "list filled targets of site "+site, func(s scanner, f *Fill) error {
		return s.Scan(&f.Site, &f.Channel, &f.Target, &f.Volume, &f.Machine, moment{&f.At}, &f.Number, digestBlob(&f.Release))
	}, `SELECT f.site, f.channel, f.target, f.volume, f.machine, f.at, ifnull(h.number, 0), ifnull(h.release, zeroblob(32)) FROM fills f
		LEFT JOIN holdings h ON h.domain = ?1 AND h.site = f.site AND h.channel = f.channel WHERE f.site = ?2 ORDER BY f.channel, f.target`, domain, site)
}

// Holdings lists the latest attested holding of each site and channel, ordered by domain, site and channel. Only the
// names of the filter apply.
func (l *Ledger) Holdings(ctx context.Context, f Filter) ([]Holding, error) {
	var c clause
	c.addNames(f.Domain, f.Site, f.Channel)
	return queryAll(ctx, l.db.read, "list what sites hold", func(s scanner, h *Holding) error {
		return s.Scan(&h.Domain, &h.Site, &h.Channel, &h.Number, digestBlob(&h.Release), digestBlob(&h.Tree), moment{&h.Since}, moment{&h.Attested},
			moment{&h.Verified}, blob{h.Run[:]}, &h.Files, &h.Bytes, moment{&h.Lacks})
	}, "SELECT domain, site, channel, number, release, tree, since, attested, verified, run, files, bytes, lacks FROM holdings"+c.whereSQL()+" ORDER BY domain, site, channel", c.args...)
}
