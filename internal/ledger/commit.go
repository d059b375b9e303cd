package ledger

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/digest"
)

// Commit stores a site's events in one transaction. It ignores events up to the
// last committed sequence of the generation, so that a batch may be sent again,
// also split differently. If a batch leaves a gap, Commit returns a *GapError.
func (l *Ledger) Commit(ctx context.Context, b Batch) (c Committed, err error) {
	now := l.db.now()
	err = l.db.makeChange(ctx, fmt.Sprintf("commit events of site %s of domain %s", b.Site, b.Domain), func(x *tx) error {
		if b.First == 0 {
			return fmt.Errorf("sequence 0: the first event has sequence 1")
		}
		end, err := toInt64("sequence", b.First+uint64(len(b.Events)))
		if err != nil {
			return err
		}
		last, fresh, err := x.readSpool(b.Domain, b.Site, b.Generation)
		if err != nil {
			return err
		}
		c = Committed{Last: last}
		if fresh {
			if err := x.queryRow("SELECT EXISTS (SELECT 1 FROM spools WHERE domain = ? AND site = ?)", b.Domain, b.Site).Scan(&c.NewGeneration); err != nil {
				return err
			}
		}
		if b.First > last+1 {
			return &GapError{Want: last + 1, Got: b.First}
		}
		events := b.Events[min(last+1-b.First, uint64(len(b.Events))):]
		if len(events) == 0 && !fresh {
			return nil
		}
		// Turns, and not times: a clock may have been wrong.
		if err := x.queryRow("SELECT EXISTS (SELECT 1 FROM spools s JOIN spools newer USING (domain, site) WHERE domain = ? AND site = ? AND s.generation = ? AND newer.turn > s.turn)",
			b.Domain, b.Site, b.Generation[:]).Scan(&c.Returned); err != nil {
			return err
		}
		if err := x.storeEvents(now, b.Domain, b.Site, events, &c); err != nil {
			return err
		}
		c.Last, c.Fresh = max(last, uint64(end)-1), len(events)
		return x.writeSpool(b.Domain, b.Site, b.Generation, c.Last, now)
	})
	if err != nil {
		return Committed{}, err
	}
	return c, nil
}

// readSpool returns the last sequence of a generation. fresh means that the
// generation is new.
func (x *tx) readSpool(domain, site string, generation [16]byte) (last uint64, fresh bool, err error) {
	err = x.queryRow("SELECT last FROM spools WHERE domain = ? AND site = ? AND generation = ?", domain, site, generation[:]).Scan(&last)
	if classifyError(err) == ErrNotFound {
		return 0, true, nil
	}
	return last, false, err
}

func (x *tx) writeSpool(domain, site string, generation [16]byte, last uint64, now time.Time) error {
	return x.execSQL(`INSERT INTO spools (domain, site, generation, last, last_seen, turn)
			SELECT ?1, ?2, ?3, ?4, ?5, 1 + coalesce(max(turn), 0) FROM spools WHERE domain = ?1 AND site = ?2 AND generation != ?3
		ON CONFLICT (domain, site, generation) DO UPDATE SET last = excluded.last, last_seen = excluded.last_seen, turn = max(turn, excluded.turn)`,
		domain, site, generation[:], int64(last), toMicros(now))
}

// Skip accepts that the events of a generation before next are lost: the ledger
// is a restored backup, and the site has deleted them. The sequence never goes
// back.
func (l *Ledger) Skip(ctx context.Context, domain, site string, generation [16]byte, next uint64) error {
	now := l.db.now()
	return l.db.makeChange(ctx, fmt.Sprintf("skip lost events of site %s of domain %s", site, domain), func(x *tx) error {
		if _, err := toInt64("sequence", next); err != nil || next == 0 {
			return fmt.Errorf("sequence %d is out of range", next)
		}
		last, _, err := x.readSpool(domain, site, generation)
		if err != nil || last+1 >= next {
			return err
		}
		return x.writeSpool(domain, site, generation, next-1, now)
	})
}

// Append stores the Core's own events: of its own runs (domain and site empty),
// or of a run that it records for a site, such as a missed one. They have no
// sequence, so a caller that lost the result of an Append must not repeat it
// blindly.
func (l *Ledger) Append(ctx context.Context, domain, site string, events []Event) (c Committed, err error) {
	now := l.db.now()
	err = l.db.makeChange(ctx, "keep the Core's events", func(x *tx) error {
		c = Committed{Fresh: len(events)}
		return x.storeEvents(now, domain, site, events, &c)
	})
	if err != nil {
		return Committed{}, err
	}
	return c, nil
}

// storeEvents stores events in the order given.
func (x *tx) storeEvents(now time.Time, domain, site string, events []Event, c *Committed) error {
	for _, e := range events {
		for _, p := range e.Incidents {
			opened, err := x.openIncident(now, p)
			if err != nil {
				return err
			}
			if opened {
				c.Opened = append(c.Opened, p.Key)
			}
		}
		for _, key := range e.Ended {
			resolved, err := x.resolveIncident(now, key, domain, site)
			if err != nil {
				return err
			}
			if resolved {
				c.Resolved = append(c.Resolved, key)
			}
		}
		if e.Run.IsZero() {
			continue
		}
		if err := x.storeEvent(now, domain, site, e, c); err != nil {
			return err
		}
	}
	return nil
}

func (x *tx) storeEvent(now time.Time, domain, site string, e Event, c *Committed) error {
	r, err := x.findRun(now, domain, site, e)
	if err != nil {
		return err
	}
	if r.rendered {
		// The log is written and the totals are final. Later events are only counted, so that an operator can see that
		// they came.
		return x.execSQL("UPDATE runs SET late = late + 1, last = ? WHERE seq = ?", toMicros(now), r.seq)
	}
	if err := x.execSQL("INSERT INTO events (run, kind, at, body) VALUES (?, ?, ?, ?)", r.seq, e.Kind, toMicros(e.At), bytesOf(e.Body)); err != nil {
		return err
	}
	if s := e.Start; s != nil {
		num, err := toInt64("release", s.Number)
		if err != nil {
			return err
		}
		parent, err := toInt64("release", s.Parent)
		if err != nil {
			return err
		}
		if err := x.execSQL("UPDATE runs SET number = ?, release = ?, tree = ?, parent = ?, trigger = ?, dry_run = ?, started = min(started, ?) WHERE seq = ?",
			num, s.Release[:], s.Tree[:], parent, s.Trigger, s.DryRun, toMicros(e.At), r.seq); err != nil {
			return err
		}
	}
	if err := x.storeExceptions(domain, site, e); err != nil {
		return err
	}
	if e.Finish != nil {
		c.Finished = append(c.Finished, e.Run)
		return x.finishRun(r.seq, domain, site, e)
	}
	return nil
}

// storeExceptions stores an event's results of single files: one row for each path
// of a site's channel. An unchanged outcome only increments the count.
func (x *tx) storeExceptions(domain, site string, e Event) error {
	if len(e.Exceptions) == 0 {
		return nil
	}
	var kept int
	if err := x.queryRow("SELECT count(*) FROM exceptions WHERE domain = ? AND site = ?", domain, site).Scan(&kept); err != nil {
		return err
	}
	for _, s := range foldStreaks(e.Exceptions) {
		ex := s.last
		const same = "outcome = ?5 AND cause = ?6 AND ?11"
		n, err := x.execCount(`UPDATE exceptions SET outcome = ?5, cause = ?6, size = ?7, last = ?8, run = ?9,
			first = iif(`+same+`, first, ?8), count = iif(`+same+`, count, 0) + ?10, as_run = iif(`+same+`, as_run, ?9)
			WHERE domain = ?1 AND site = ?2 AND channel = ?3 AND path = ?4`,
			domain, site, e.Channel, ex.Path, ex.Outcome, ex.Cause, ex.Size, toMicros(e.At), e.Run[:], s.count, s.unbroken)
		if err != nil {
			return err
		}
		if n > 0 || kept >= MaxExceptions {
			continue
		}
		kept++
		if err := x.execSQL(`INSERT INTO exceptions (domain, site, channel, path, outcome, cause, size, first, last, count, as_run, run)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?10, ?9, ?9)`,
			domain, site, e.Channel, ex.Path, ex.Outcome, ex.Cause, ex.Size, toMicros(e.At), e.Run[:], s.count); err != nil {
			return err
		}
	}
	return nil
}

// streak is the last outcome of a path in one event, and how many times in a row the path had it. unbroken means that
// the event contains no other outcome of the path.
type streak struct {
	last     Exception
	count    int
	unbroken bool
}

// foldStreaks folds an event's exceptions into one per path, in the order in which
// the paths first appear: an event that repeats a few paths costs few writes.
func foldStreaks(all []Exception) []streak {
	out := make([]streak, 0, len(all))
	at := make(map[string]int, len(all))
	for _, ex := range all {
		i, known := at[ex.Path]
		if !known {
			at[ex.Path] = len(out)
			out = append(out, streak{last: ex, count: 1, unbroken: true})
			continue
		}
		s := &out[i]
		if s.last.Outcome == ex.Outcome && s.last.Cause == ex.Cause {
			s.count++
		} else {
			s.count, s.unbroken = 1, false
		}
		s.last = ex
	}
	return out
}

type placed struct {
	seq      int64
	rendered bool
}

// findRun finds the event's run or opens it, and updates the time of its last
// event.
func (x *tx) findRun(now time.Time, domain, site string, e Event) (placed, error) {
	if err := x.execSQL(`INSERT INTO runs (id, domain, site, channel, started, last) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		e.Run[:], domain, site, e.Channel, toMicros(e.At), toMicros(now)); err != nil {
		return placed{}, err
	}
	var p placed
	var d, s, ch string
	if err := x.queryRow("UPDATE runs SET last = ? WHERE id = ? RETURNING seq, domain, site, channel, rendered > 0", toMicros(now), e.Run[:]).
		Scan(&p.seq, &d, &s, &ch, &p.rendered); err != nil {
		return placed{}, err
	}
	if d != domain || s != site || ch != e.Channel {
		return placed{}, fmt.Errorf("event of run %s: %w", e.Run, ErrForeignRun)
	}
	return p, nil
}

// finishRun ends a run. If a run ends twice before its log is written, the last result counts. That happens when the Core
// gives up a run whose site is still alive.
func (x *tx) finishRun(seq int64, domain, site string, e Event) error {
	f, t := e.Finish, e.Finish.Totals
	if f.State == "" {
		return fmt.Errorf("run %s ends in no state", e.Run)
	}
	var att digest.Digest
	if f.Attestation != nil {
		att = digest.Of(f.Attestation.Signed)
	}
	if err := x.execSQL(`UPDATE runs SET finished = ?, state = ?, cause = ?, files = ?, bytes = ?, added = ?, changed = ?, moved = ?, repaired = ?,
		deleted = ?, unchanged = ?, locked = ?, failed = ?, extra = ?, differs = ?, held = ?, fetched = ?, wire = ?, attestation = ? WHERE seq = ?`,
		toMicros(e.At), string(f.State), f.Cause, t.Files, t.Bytes, t.Added, t.Changed, t.Moved, t.Repaired, t.Deleted, t.Unchanged, t.Locked, t.Failed,
		t.Extra, t.Differs, t.Held, t.Fetched, t.Wire, att[:], seq); err != nil {
		return err
	}
	if err := x.storeFill(site, e); err != nil || f.Attestation == nil {
		return err
	}
	return x.storeAttestation(seq, domain, site, e, att)
}

// storeFill records the target in which a run found content. A site keeps its fills when it moves to another domain.
func (x *tx) storeFill(site string, e Event) error {
	f := e.Finish.Filled
	if f == nil {
		return nil
	}
	err := x.execSQL("INSERT OR REPLACE INTO fills (site, channel, target, volume, machine, at) VALUES (?, ?, ?, ?, ?, ?)",
		site, e.Channel, f.Target, f.Volume, bytesOf(f.Machine), toMicros(e.At))
	if err != nil {
		return err
	}
	return x.execSQL(`DELETE FROM fills WHERE site = ?1 AND channel = ?2 AND target NOT IN
		(SELECT target FROM fills WHERE site = ?1 AND channel = ?2 ORDER BY target = ?3 DESC, at DESC LIMIT ?4)`, site, e.Channel, f.Target, MaxFills)
}

func (x *tx) storeAttestation(seq int64, domain, site string, e Event, sum digest.Digest) error {
	a := e.Finish.Attestation
	num, err := toInt64("release", a.Number)
	if err != nil {
		return err
	}
	if err := x.execSQL(`INSERT INTO attestations (run, at, nonce, number, release, tree, files, bytes, read, statted, oldest_read, verified, digest, signed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, seq, toMicros(a.At), a.Nonce[:], num, a.Release[:], a.Tree[:], a.Files, a.Bytes, a.Read,
		a.Statted, toMicros(a.OldestRead), a.Verified, sum[:], bytesOf(a.Signed)); err != nil {
		return err
	}
	verified := int64(0)
	if a.Verified {
		verified = toMicros(a.At)
	}
	// since and verified apply to one release. Another release resets both.
	return x.execSQL(`INSERT INTO holdings (domain, site, channel, number, release, tree, since, attested, verified, run, files, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11)
		ON CONFLICT (domain, site, channel) DO UPDATE SET
		since = iif(release = excluded.release AND tree = excluded.tree, since, excluded.since),
		verified = iif(release = excluded.release AND tree = excluded.tree, max(verified, excluded.verified), excluded.verified),
		number = excluded.number, release = excluded.release, tree = excluded.tree, attested = excluded.attested, run = excluded.run,
		files = excluded.files, bytes = excluded.bytes, lacks = 0`,
		domain, site, e.Channel, num, a.Release[:], a.Tree[:], toMicros(a.At), verified, e.Run[:], a.Files, a.Bytes)
}
