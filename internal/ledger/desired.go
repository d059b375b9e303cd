package ledger

import (
	"context"
	"fmt"

	"nightferry/internal/trust"
)

// Revision returns the highest revision issued so far.
func (l *Ledger) Revision(ctx context.Context) (uint64, error) {
	return queryOne(ctx, l.db.read, "read the revision", func(s scanner, n *uint64) error { return s.Scan(n) }, "SELECT revision FROM meta")
}

// nextRevision issues a revision within a transaction.
func (x *tx) nextRevision() (n uint64, err error) {
	return n, x.queryRow("UPDATE meta SET revision = revision + 1 RETURNING revision").Scan(&n)
}

// NextRevision issues a revision: one more than any before.
func (l *Ledger) NextRevision(ctx context.Context) (n uint64, err error) {
	err = l.db.makeChange(ctx, "take a revision", func(x *tx) (err error) {
		n, err = x.nextRevision()
		return err
	})
	return n, err
}

// Restate makes revision the highest one, and the revision of every site's state. It fails with ErrConflict if that or a
// higher one was issued.
func (l *Ledger) Restate(ctx context.Context, revision uint64) error {
	return l.db.makeChange(ctx, fmt.Sprintf("restate desired states under revision %d", revision), func(x *tx) error {
		n, err := x.execCount("UPDATE meta SET revision = ?1 WHERE revision < ?1", int64(revision))
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: the ledger has this revision or a higher one", ErrConflict)
		}
		if err != nil {
			return err
		}
		return x.execSQL("UPDATE desired_revisions SET revision = ?", int64(revision))
	})
}

const releaseColumns = "channel, number, digest, tree, parent, files, bytes, published, run"

func scanRelease(s scanner, r *Release) error {
	return s.Scan(&r.Channel, &r.Number, digestBlob(&r.Digest), digestBlob(&r.Tree), &r.Parent, &r.Files, &r.Bytes, moment{&r.Published}, blob{r.Run[:]})
}

// AddRelease stores a release. Adding the same release again changes nothing. A different release with the same number
// is ErrConflict.
func (l *Ledger) AddRelease(ctx context.Context, r Release) error {
	num, err := toInt64("release", r.Number)
	if err != nil {
		return err
	}
	return l.db.makeChange(ctx, fmt.Sprintf("keep release %d of channel %s", r.Number, r.Channel), func(x *tx) error {
		n, err := x.execCount(`INSERT INTO releases (`+releaseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (channel, number) DO UPDATE SET run = run WHERE digest = excluded.digest`,
			r.Channel, num, r.Digest[:], r.Tree[:], int64(r.Parent), r.Files, r.Bytes, toMicros(r.Published), r.Run[:])
		if err == nil && n == 0 {
			err = fmt.Errorf("%w under this number", ErrConflict)
		}
		return err
	})
}

// Release returns a release, or ErrNotFound.
func (l *Ledger) Release(ctx context.Context, channel string, number trust.ReleaseNumber) (Release, error) {
	return queryOne(ctx, l.db.read, fmt.Sprintf("find release %d of channel %s", number, channel), scanRelease,
		"SELECT "+releaseColumns+" FROM releases WHERE channel = ? AND number = ?", channel, int64(number))
}

// Releases lists the newest n releases of a channel (0: 1 000), newest first. An empty channel means all channels.
func (l *Ledger) Releases(ctx context.Context, channel string, n int) ([]Release, error) {
	return queryAll(ctx, l.db.read, "list releases", scanRelease,
		"SELECT "+releaseColumns+" FROM releases WHERE channel = ?1 OR ?1 = '' ORDER BY channel, number DESC LIMIT ?2", channel, rowLimit(n))
}

const desiredColumns = "domain, site, channel, number, release, tree, nonce, start, dry_run, mode, body, by, set_at, revision"

func scanDesired(s scanner, d *Desired) error {
	return s.Scan(&d.Domain, &d.Site, &d.Channel, &d.Number, digestBlob(&d.Release), digestBlob(&d.Tree), blob{d.Nonce[:]}, &d.Start,
		&d.DryRun, &d.Mode, &d.Body, &d.By, moment{&d.Set}, &d.Revision)
}

// ChangeDesired changes the desired state of sites, all or nothing, and returns the revision of the change. All
// affected sites get this one revision. An empty change returns the current revision.
func (l *Ledger) ChangeDesired(ctx context.Context, c DesiredChange) (revision uint64, err error) {
	now := l.db.now()
	err = l.db.makeChange(ctx, "change what sites should hold", func(x *tx) error {
		if len(c.Set) == 0 && len(c.Drop) == 0 {
			if err := x.queryRow("SELECT revision FROM meta").Scan(&revision); err != nil {
				return err
			}
			return x.setLimits(c.Limits)
		}
		if revision, err = x.nextRevision(); err != nil {
			return err
		}
		for _, d := range c.Set {
			d.Set, d.Revision = now, revision
			if err := x.setDesired(&d); err != nil {
				return err
			}
		}
		for _, k := range c.Drop {
			if err := x.execSQL("DELETE FROM desired WHERE domain = ? AND site = ? AND channel = ?", k.Domain, k.Site, k.Channel); err != nil {
				return err
			}
			if err := x.touchState(k.Domain, k.Site, revision); err != nil {
				return err
			}
		}
		return x.setLimits(c.Limits)
	})
	return revision, err
}

func (x *tx) setDesired(d *Desired) error {
	num, err := toInt64("release", d.Number)
	if err != nil {
		return err
	}
	start, err := toInt64("start", d.Start)
	if err != nil {
		return err
	}
	err = x.execSQL("INSERT OR REPLACE INTO desired ("+desiredColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		d.Domain, d.Site, d.Channel, num, d.Release[:], d.Tree[:], d.Nonce[:], start, d.DryRun, int64(d.Mode), bytesOf(d.Body), d.By, toMicros(d.Set), int64(d.Revision))
	if err != nil {
		return err
	}
	return x.touchState(d.Domain, d.Site, d.Revision)
}

func (x *tx) setLimits(limits map[SiteKey]Limit) error {
	for k, m := range limits {
		err := x.execSQL("DELETE FROM limits WHERE domain = ? AND site = ?", k.Domain, k.Site)
		if err == nil && m.Timetable != "" {
			err = x.execSQL("INSERT INTO limits (domain, site, timetable, until) VALUES (?, ?, ?, ?)", k.Domain, k.Site, m.Timetable, m.Until)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// touchState sets the revision of a site's state.
func (x *tx) touchState(domain, site string, revision uint64) error {
	return x.execSQL(`INSERT INTO desired_revisions (domain, site, revision) VALUES (?, ?, ?)
		ON CONFLICT (domain, site) DO UPDATE SET revision = excluded.revision`, domain, site, int64(revision))
}

// DesiredState returns the desired state of a site, or of all sites if both names are empty, ordered by domain, site
// and channel.
func (l *Ledger) DesiredState(ctx context.Context, domain, site string) (*DesiredState, error) {
	const act = "read what sites should hold"
	which, args := "", []any(nil)
	if site != "" {
		which, args = " WHERE domain = ? AND site = ?", []any{domain, site}
	}
	s := &DesiredState{Revisions: map[SiteKey]uint64{}, Limits: map[SiteKey]Limit{}}
	type named struct {
		key      SiteKey
		revision uint64
		limit    Limit
	}
	// Read the revisions first. If a change happens between the two reads, the site then asks again and does not miss
	// it.
	revisions, err := queryAll(ctx, l.db.read, act, func(s scanner, n *named) error { return s.Scan(&n.key.Domain, &n.key.Site, &n.revision) },
		"SELECT domain, site, revision FROM desired_revisions"+which, args...)
	if err != nil {
		return nil, err
	}
	for _, r := range revisions {
		s.Revisions[r.key] = r.revision
	}
	limits, err := queryAll(ctx, l.db.read, act, func(s scanner, n *named) error {
		return s.Scan(&n.key.Domain, &n.key.Site, &n.limit.Timetable, &n.limit.Until)
	}, "SELECT domain, site, timetable, until FROM limits"+which, args...)
	if err != nil {
		return nil, err
	}
	for _, m := range limits {
		s.Limits[m.key] = m.limit
	}
	s.Rows, err = queryAll(ctx, l.db.read, act, scanDesired, "SELECT "+desiredColumns+" FROM desired"+which+" ORDER BY domain, site, channel", args...)
	return s, err
}
