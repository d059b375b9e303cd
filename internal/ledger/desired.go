package ledger

import (
	"context"
	"fmt"
)

// Revision returns the highest revision that was ever given out.
func (l *Ledger) Revision(ctx context.Context) (uint64, error) {
	return one(ctx, l.read, "read the revision", func(s scanner, n *uint64) error { return s.Scan(n) }, "SELECT revision FROM meta")
}

// next gives out a revision within a transaction.
func (x *tx) next() (n uint64, err error) {
	return n, x.row("UPDATE meta SET revision = revision + 1 RETURNING revision").Scan(&n)
}

// NextRevision gives out a revision: one more than any before.
func (l *Ledger) NextRevision(ctx context.Context) (n uint64, err error) {
	err = l.update(ctx, "take a revision", func(x *tx) (err error) {
		n, err = x.next()
		return err
	})
	return n, err
}

// AdoptRevision makes the revision at least atLeast, because a site has seen
// that one (the ledger may be a restored backup), and returns it.
func (l *Ledger) AdoptRevision(ctx context.Context, atLeast uint64) (n uint64, err error) {
	// A site that claims the highest number of all must not use the numbers up.
	const highest = 1 << 62
	if atLeast > highest {
		return 0, fmt.Errorf("adopt revision %d: want at most %d", atLeast, uint64(highest))
	}
	err = l.update(ctx, fmt.Sprintf("adopt revision %d", atLeast), func(x *tx) error {
		return x.row("UPDATE meta SET revision = max(revision, ?) RETURNING revision", int64(atLeast)).Scan(&n)
	})
	return n, err
}

const releaseColumns = "channel, number, digest, tree, parent, files, bytes, published, run"

func scanRelease(s scanner, r *Release) error {
	return s.Scan(&r.Channel, &r.Number, sum(&r.Digest), sum(&r.Tree), &r.Parent, &r.Files, &r.Bytes, moment{&r.Published}, blob{r.Run[:]})
}

// AddRelease keeps a release. Adding it again changes nothing; another one
// under the same number is ErrConflict.
func (l *Ledger) AddRelease(ctx context.Context, r Release) error {
	num, err := number("release", r.Number)
	if err != nil {
		return err
	}
	return l.update(ctx, fmt.Sprintf("keep release %d of channel %s", r.Number, r.Channel), func(x *tx) error {
		n, err := x.count(`INSERT INTO releases (`+releaseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (channel, number) DO UPDATE SET run = run WHERE digest = excluded.digest`,
			r.Channel, num, r.Digest[:], r.Tree[:], int64(r.Parent), r.Files, r.Bytes, micros(r.Published), r.Run[:])
		if err == nil && n == 0 {
			err = fmt.Errorf("%w under this number", ErrConflict)
		}
		return err
	})
}

// Release returns a release, or ErrNotFound.
func (l *Ledger) Release(ctx context.Context, channel string, number uint64) (Release, error) {
	return one(ctx, l.read, fmt.Sprintf("find release %d of channel %s", number, channel), scanRelease,
		"SELECT "+releaseColumns+" FROM releases WHERE channel = ? AND number = ?", channel, int64(number))
}

// Releases lists the newest n releases of a channel (0: 1 000), the newest
// first; an empty channel stands for all.
func (l *Ledger) Releases(ctx context.Context, channel string, n int) ([]Release, error) {
	return many(ctx, l.read, "list releases", scanRelease,
		"SELECT "+releaseColumns+" FROM releases WHERE channel = ?1 OR ?1 = '' ORDER BY channel, number DESC LIMIT ?2", channel, limit(n))
}

const desiredColumns = "domain, site, channel, number, release, tree, nonce, start, dry_run, body, by, set_at, revision"

func scanDesired(s scanner, d *Desired) error {
	return s.Scan(&d.Domain, &d.Site, &d.Channel, &d.Number, sum(&d.Release), sum(&d.Tree), blob{d.Nonce[:]}, &d.Start,
		&d.DryRun, &d.Body, &d.By, moment{&d.Set}, &d.Revision)
}

// SetDesired sets what sites should hold, all or nothing, and returns the
// revision of the change. Rows that say what is there already change nothing
// (By does not count); when none does, no new revision is taken and the one in
// force is returned.
func (l *Ledger) SetDesired(ctx context.Context, list []Desired) (revision uint64, err error) {
	now := l.now()
	err = l.update(ctx, "set what sites should hold", func(x *tx) error {
		before, err := x.next()
		if err != nil {
			return err
		}
		changed := false
		for _, d := range list {
			num, err := number("release", d.Number)
			if err != nil {
				return err
			}
			start, err := number("start", d.Start)
			if err != nil {
				return err
			}
			n, err := x.count(`INSERT INTO desired (`+desiredColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (domain, site, channel) DO UPDATE SET number = excluded.number, release = excluded.release, tree = excluded.tree,
				nonce = excluded.nonce, start = excluded.start, dry_run = excluded.dry_run, body = excluded.body, by = excluded.by,
				set_at = excluded.set_at, revision = excluded.revision
				WHERE (number, release, tree, nonce, start, dry_run, body) IS NOT (excluded.number, excluded.release, excluded.tree,
				excluded.nonce, excluded.start, excluded.dry_run, excluded.body)`,
				d.Domain, d.Site, d.Channel, num, d.Release[:], d.Tree[:], d.Nonce[:], start, d.DryRun, bytesOf(d.Body), d.By, micros(now), int64(before))
			if err != nil {
				return err
			}
			if n > 0 {
				changed = true
				if err := x.touch(d.Domain, d.Site, before); err != nil {
					return err
				}
			}
		}
		revision = before
		if !changed {
			revision--
			return x.exec("UPDATE meta SET revision = ?", int64(revision))
		}
		return nil
	})
	return revision, err
}

// touch gives a site's state its revision.
func (x *tx) touch(domain, site string, revision uint64) error {
	return x.exec(`INSERT INTO desired_revisions (domain, site, revision) VALUES (?, ?, ?)
		ON CONFLICT (domain, site) DO UPDATE SET revision = excluded.revision`, domain, site, int64(revision))
}

// DropDesired forgets what a site should hold of a channel, and returns the
// site's revision, which grows when there was anything.
func (l *Ledger) DropDesired(ctx context.Context, domain, site, channel string) (revision uint64, err error) {
	err = l.update(ctx, fmt.Sprintf("drop channel %s of site %s of domain %s", channel, site, domain), func(x *tx) error {
		n, err := x.count("DELETE FROM desired WHERE domain = ? AND site = ? AND channel = ?", domain, site, channel)
		if err != nil {
			return err
		}
		if n > 0 {
			if revision, err = x.next(); err != nil {
				return err
			}
			return x.touch(domain, site, revision)
		}
		return x.row("SELECT ifnull((SELECT revision FROM desired_revisions WHERE domain = ? AND site = ?), 0)", domain, site).Scan(&revision)
	})
	return revision, err
}

// DesiredOf returns what a site should hold, by channel, and the revision of
// its last change (0: never any).
func (l *Ledger) DesiredOf(ctx context.Context, domain, site string) (list []Desired, revision uint64, err error) {
	act := fmt.Sprintf("read what site %s of domain %s should hold", site, domain)
	// The revision first: a change between the two then makes the site ask again, instead of missing it.
	revision, err = one(ctx, l.read, act, func(s scanner, n *uint64) error { return s.Scan(n) },
		"SELECT ifnull((SELECT revision FROM desired_revisions WHERE domain = ? AND site = ?), 0)", domain, site)
	if err != nil {
		return nil, 0, err
	}
	list, err = many(ctx, l.read, act, scanDesired,
		"SELECT "+desiredColumns+" FROM desired WHERE domain = ? AND site = ? ORDER BY channel", domain, site)
	return list, revision, err
}

// AllDesired returns what all sites should hold, by domain, site and channel.
func (l *Ledger) AllDesired(ctx context.Context) ([]Desired, error) {
	return many(ctx, l.read, "read what all sites should hold", scanDesired,
		"SELECT "+desiredColumns+" FROM desired ORDER BY domain, site, channel")
}
