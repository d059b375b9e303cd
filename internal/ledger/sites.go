package ledger

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"nightferry/internal/trust"
)

const tokenColumns = "id, domain, site, issued, issued_by, expires, used, used_by, user, ended"

func scanToken(s scanner, t *Token) error {
	return s.Scan(&t.ID, &t.Domain, &t.Site, moment{&t.Issued}, &t.IssuedBy, moment{&t.Expires}, moment{&t.Used}, &t.UsedBy, &t.User, moment{&t.Ended})
}

// AddToken stores a new token with the hash of its secret. The ledger sets Issued; it ignores Used, UsedBy and Ended.
func (store *Sites) AddToken(ctx context.Context, t Token, hash [32]byte) (Token, error) {
	t.Issued, t.Used, t.UsedBy, t.Ended = store.db.now().UTC().Truncate(time.Microsecond), time.Time{}, "", time.Time{}
	err := store.db.makeChange(ctx, fmt.Sprintf("keep enrollment token %s", t.ID), func(x *tx) error {
		n, err := x.execCount(`INSERT INTO tokens (id, hash, domain, site, issued, issued_by, expires, user) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, t.ID, hash[:], t.Domain, t.Site, toMicros(t.Issued), t.IssuedBy, toMicros(t.Expires), t.User)
		if err == nil && n == 0 {
			err = ErrConflict
		}
		return err
	})
	return t, err
}

// TakeToken uses up a token for the key public and returns it. Of several callers, one succeeds; the others get
// ErrUsedToken in an error that includes the time of use. The same key may take the token again until it expires or
// ends, because the first answer may have been lost. A wrong secret is ErrUnknownToken too.
func (store *Sites) TakeToken(ctx context.Context, id string, hash [32]byte, public string) (t Token, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("take enrollment token %q", id), func(x *tx) error {
		var known []byte
		if err := x.queryRow("SELECT hash FROM tokens WHERE id = ?", id).Scan(&known); classifyError(err) == ErrNotFound {
			return ErrUnknownToken
		} else if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(known, hash[:]) != 1 {
			return ErrUnknownToken
		}
		if err := scanToken(x.queryRow("SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id), &t); err != nil {
			return err
		}
		switch again := t.UsedBy == public && public != "" && t.Ended.IsZero(); {
		case !t.Used.IsZero() && !again:
			return fmt.Errorf("%w (used %s)", ErrUsedToken, t.Used.Format(time.RFC3339))
		case !t.Ended.IsZero():
			return fmt.Errorf("%w (revoked %s)", ErrExpiredToken, t.Ended.Format(time.RFC3339))
		case !now.Before(t.Expires):
			return fmt.Errorf("%w (on %s)", ErrExpiredToken, t.Expires.Format(time.RFC3339))
		case !t.Used.IsZero():
			return nil
		}
		t.Used, t.UsedBy = fromMicros(toMicros(now)), public
		return x.execSQL("UPDATE tokens SET used = ?, used_by = ? WHERE id = ?", toMicros(t.Used), public, id)
	})
	if err != nil {
		return Token{}, err
	}
	return t, nil
}

// EndTokens ends the tokens of a site in a domain, or with an empty domain in any; or with an empty name those of a domain, whatever the clock says about their expiry. It
// returns the number of those that were neither used nor expired.
func (store *Sites) EndTokens(ctx context.Context, domain, site string) (unused int, err error) {
	now := toMicros(store.db.now())
	err = store.db.makeChange(ctx, fmt.Sprintf("end the tokens of site %q of domain %s", site, domain), func(x *tx) error {
		const which = " WHERE (domain = ?1 OR ?1 = '' AND ?2 != '') AND (?2 = '' OR site = ?2) AND ended = 0"
		if err := x.queryRow("SELECT count(*) FROM tokens"+which+" AND used = 0 AND expires > ?3", domain, site, now).Scan(&unused); err != nil {
			return err
		}
		return x.execSQL("UPDATE tokens SET ended = ?3"+which, domain, site, now)
	})
	return unused, err
}

// EndUsedTokens ends the tokens that the key public has used, because its holder has received the answer. It returns their
// number.
func (store *Sites) EndUsedTokens(ctx context.Context, public string) (int, error) {
	const which = " WHERE used_by = ?1 AND ended = 0"
	n, err := queryOne(ctx, store.db.read, "find the token of an identity", func(s scanner, n *int) error { return s.Scan(n) },
		"SELECT count(*) FROM tokens"+which, public)
	if err != nil || n == 0 { // every hello asks; only a site's first one has a token to end
		return 0, err
	}
	return n, store.db.makeChange(ctx, fmt.Sprintf("end the token of identity %s", public), func(x *tx) error {
		return x.execSQL("UPDATE tokens SET ended = ?2"+which, public, toMicros(store.db.now()))
	})
}

// EndedTokenUsers lists the public keys of the users of ended tokens. Their JWTs may not have expired yet.
func (store *Sites) EndedTokenUsers(ctx context.Context) ([]string, error) {
	return queryAll(ctx, store.db.read, "list the users of ended tokens", func(s scanner, user *string) error { return s.Scan(user) },
		"SELECT user FROM tokens WHERE ended > 0 AND user != '' ORDER BY user")
}

// Tokens lists all tokens, newest first.
func (store *Sites) Tokens(ctx context.Context) ([]Token, error) {
	return queryAll(ctx, store.db.read, "list enrollment tokens", scanToken, "SELECT "+tokenColumns+" FROM tokens ORDER BY issued DESC, id")
}

// Token returns a token without its secret, or ErrNotFound.
func (store *Sites) Token(ctx context.Context, id string) (t Token, err error) {
	return queryOne(ctx, store.db.read, "read an enrollment token", scanToken, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", id)
}

const identityColumns = "domain, site, public, enrolled, jwt_expires, version, ended, why, contested, contest, cut, process, process_since, lineage, starts, started"

func scanIdentity(s scanner, i *Identity) error {
	return s.Scan(&i.Domain, &i.Site, &i.Public, moment{&i.Enrolled}, moment{&i.JWTExpires}, &i.Version, moment{&i.Ended}, &i.Why, moment{&i.Contested}, &i.Contest,
		moment{&i.Cut}, &i.Process.ID, moment{&i.Process.Since}, &i.Process.Lineage, &i.Process.Starts, &i.Process.Started)
}

// Enrol makes id the only identity of a site of that name. It returns the identities that this ends, of any domain, so
// that they can be revoked. It ignores Ended and Why; a zero Enrolled means now. The site's holdings become unverified.
// Enrolling the same identity again renews it. A key that was ever another identity is ErrConflict.
func (store *Sites) Enrol(ctx context.Context, id Identity) (old []Identity, err error) {
	now := store.db.now()
	if id.Enrolled.IsZero() {
		id.Enrolled = now
	}
	err = store.db.makeChange(ctx, fmt.Sprintf("enroll site %s of domain %s", id.Site, id.Domain), func(x *tx) error {
		n, err := x.execCount("UPDATE identities SET jwt_expires = ?, version = ? WHERE public = ? AND domain = ? AND site = ? AND ended = 0",
			toMicros(id.JWTExpires), id.Version, id.Public, id.Domain, id.Site)
		if err != nil || n == 1 {
			return err
		}
		old, err = queryAll(x.ctx, x.conn, "end the identity of the site's former server", scanIdentity, "UPDATE identities SET ended = ?, why = 'superseded' WHERE site = ? AND ended = 0 RETURNING "+identityColumns, toMicros(now), id.Site)
		if err != nil {
			return err
		}
		n, err = x.execCount(`INSERT INTO identities (public, domain, site, enrolled, jwt_expires, version) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (public) DO NOTHING`, id.Public, id.Domain, id.Site, toMicros(id.Enrolled), toMicros(id.JWTExpires), id.Version)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: the key was another identity before: make a new one", ErrConflict)
		}
		if err != nil {
			return err
		}
		// This may be another server, so its content is unproven.
		return x.execSQL("UPDATE holdings SET verified = 0 WHERE domain = ? AND site = ?", id.Domain, id.Site)
	})
	if err != nil {
		return nil, err
	}
	return old, nil
}

// Renew records the new expiry of an identity's JWT and the agent's version.
func (store *Sites) Renew(ctx context.Context, public string, jwtExpires time.Time, version string) error {
	return store.db.makeChange(ctx, fmt.Sprintf("renew identity %s", public), func(x *tx) error {
		n, err := x.execCount("UPDATE identities SET jwt_expires = ?, version = ? WHERE public = ? AND ended = 0",
			toMicros(jwtExpires), version, public)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// Revoke ends the identity of a site and returns it, or ErrNotFound.
func (store *Sites) Revoke(ctx context.Context, domain, site, why string) (id Identity, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("revoke site %s of domain %s", site, domain), func(x *tx) error {
		return scanIdentity(x.queryRow("UPDATE identities SET ended = ?, why = ? WHERE domain = ? AND site = ? AND ended = 0 RETURNING "+identityColumns,
			toMicros(now), why, domain, site), &id)
	})
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// Contest records that two machines use the identity of a site, and returns the identity. The site's holdings become
// unverified.
func (store *Sites) Contest(ctx context.Context, domain, site, text string) (id Identity, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("contest site %s of domain %s", site, domain), func(x *tx) error {
		if err := scanIdentity(x.queryRow("UPDATE identities SET contested = ?, contest = ? WHERE domain = ? AND site = ? AND ended = 0 RETURNING "+identityColumns,
			toMicros(now), text, domain, site), &id); err != nil {
			return err
		}
		return x.execSQL("UPDATE holdings SET verified = 0 WHERE domain = ? AND site = ?", domain, site)
	})
	return id, err
}

// Settle ends the state that Contest started. Holdings attested meanwhile become unverified. The record of starts is taken
// anew from the machine that is left.
func (store *Sites) Settle(ctx context.Context, domain, site string) (id Identity, err error) {
	err = store.db.makeChange(ctx, fmt.Sprintf("settle site %s of domain %s", site, domain), func(x *tx) error {
		if err := scanIdentity(x.queryRow("UPDATE identities SET contested = 0, contest = '', lineage = '', starts = 0, started = '' WHERE domain = ? AND site = ? AND ended = 0 RETURNING "+identityColumns, domain, site), &id); err != nil {
			return err
		}
		return x.execSQL("UPDATE holdings SET verified = 0 WHERE domain = ? AND site = ?", domain, site)
	})
	return id, err
}

// NoteProcess records the process that uses an identity, or ErrNotFound.
func (store *Sites) NoteProcess(ctx context.Context, public string, p Process) error {
	return store.db.makeChange(ctx, fmt.Sprintf("record the process of identity %s", public), func(x *tx) error {
		starts, err := toInt64("number of starts", p.Starts)
		if err != nil {
			return err
		}
		n, err := x.execCount("UPDATE identities SET process = ?, process_since = ?, lineage = ?, starts = ?, started = ? WHERE public = ?",
			p.ID, toMicros(p.Since), p.Lineage, starts, p.Started, public)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// Cut records since when the configuration has no site for an identity; zero: it has one.
func (store *Sites) Cut(ctx context.Context, public string, at time.Time) error {
	return store.db.makeChange(ctx, fmt.Sprintf("record the end of identity %s by the configuration", public), func(x *tx) error {
		return x.execSQL("UPDATE identities SET cut = ? WHERE public = ?", toMicros(at), public)
	})
}

// Correct records the release that a site holds by its own account, in place of the one that it last attested to. The
// holding is unverified until the next attestation. If the ledger has no such release, known is false and the old
// holding only becomes unverified.
func (store *Sites) Correct(ctx context.Context, domain, site, channel string, number trust.ReleaseNumber, release trust.ReleaseDigest) (known bool, err error) {
	now := toMicros(store.db.now())
	err = store.db.makeChange(ctx, fmt.Sprintf("correct channel %s of site %s of domain %s", channel, site, domain), func(x *tx) error {
		num, err := toInt64("release", number)
		if err != nil {
			return err
		}
		n, err := x.execCount(`INSERT INTO holdings (domain, site, channel, number, release, tree, since, attested, verified, run, files, bytes)
			SELECT ?1, ?2, channel, number, digest, tree, ?6, ?6, 0, zeroblob(16), -1, -1 FROM releases WHERE channel = ?3 AND number = ?4 AND digest = ?5
			ON CONFLICT (domain, site, channel) DO UPDATE SET number = excluded.number, release = excluded.release, tree = excluded.tree,
			since = excluded.since, attested = excluded.attested, verified = 0, run = excluded.run, files = -1, bytes = -1, lacks = 0`, domain, site, channel, num, release[:], now)
		if known = n > 0; err != nil || known {
			return err
		}
		return x.execSQL("UPDATE holdings SET verified = 0 WHERE domain = ? AND site = ? AND channel = ?", domain, site, channel)
	})
	return known, err
}

// Lack records that a site reports that it holds nothing of a channel: another server may have taken its place. The row
// stays, because the site may hold content whose record it has lost.
func (store *Sites) Lack(ctx context.Context, domain, site, channel string) error {
	now := toMicros(store.db.now())
	return store.db.makeChange(ctx, fmt.Sprintf("record that site %s of domain %s lacks channel %s", site, domain, channel), func(x *tx) error {
		return x.execSQL("UPDATE holdings SET verified = 0, lacks = ? WHERE domain = ? AND site = ? AND channel = ? AND lacks = 0", now, domain, site, channel)
	})
}

// Identity returns the site's identity, or ErrNotFound.
func (store *Sites) Identity(ctx context.Context, domain, site string) (Identity, error) {
	return queryOne(ctx, store.db.read, fmt.Sprintf("find the identity of site %s of domain %s", site, domain), scanIdentity,
		"SELECT "+identityColumns+" FROM identities WHERE domain = ? AND site = ? AND ended = 0", domain, site)
}

// Identities lists the identities of all sites; with ended, also past ones, whose JWTs may not have expired yet.
func (store *Sites) Identities(ctx context.Context, ended bool) ([]Identity, error) {
	return queryAll(ctx, store.db.read, "list identities", scanIdentity,
		"SELECT "+identityColumns+" FROM identities WHERE ended = 0 OR ? ORDER BY domain, site, enrolled, public", ended)
}

// Seen records sightings of agents in one transaction. It ignores a sighting older than the recorded one.
func (store *Sites) Seen(ctx context.Context, list []Sighting) error {
	return store.db.makeChange(ctx, "record the sites seen", func(x *tx) error {
		for _, s := range list {
			lag, err := toInt64("lag", s.Lag)
			if err != nil {
				return err
			}
			rev, err := toInt64("revision", s.Revision)
			if err != nil {
				return err
			}
			if err := x.execSQL(`INSERT INTO sightings (domain, site, seen, version, clock_offset, lag, revision) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (domain, site) DO UPDATE SET seen = excluded.seen, version = excluded.version,
				clock_offset = excluded.clock_offset, lag = excluded.lag, revision = excluded.revision WHERE excluded.seen >= seen`,
				s.Domain, s.Site, toMicros(s.Seen), s.Version, int64(s.ClockOffset), lag, rev); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sightings lists the last sighting of each agent.
func (store *Sites) Sightings(ctx context.Context) ([]Sighting, error) {
	return queryAll(ctx, store.db.read, "list sightings", func(s scanner, v *Sighting) error {
		return s.Scan(&v.Domain, &v.Site, moment{&v.Seen}, &v.Version, &v.ClockOffset, &v.Lag, &v.Revision)
	}, "SELECT domain, site, seen, version, clock_offset, lag, revision FROM sightings ORDER BY domain, site")
}
