package ledger

import (
	"context"
	"fmt"
	"time"
)

// Keep stores halt orders, records which are lifted, and stores their confirmations in place of earlier ones of the same
// sites. Repeating it changes nothing.
func (store *Halts) Keep(ctx context.Context, list []Halt) error {
	return store.db.makeChange(ctx, "keep halt orders", func(x *tx) error {
		for _, h := range list {
			err := x.execSQL("INSERT INTO halts (id, scope, value, reason, by, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
				h.Order[:], h.Scope, h.Value, h.Reason, h.By, toMicros(h.At))
			if err == nil && !h.Resumed.IsZero() {
				err = x.execSQL("UPDATE halts SET resumed = ?, resumed_by = ? WHERE id = ? AND resumed = 0", toMicros(h.Resumed), h.ResumedBy, h.Order[:])
			}
			for _, s := range h.Confirmed {
				if err == nil {
					err = x.execSQL("INSERT OR REPLACE INTO stops (halt, domain, site, stopped, bytes_after, said, confirmed, within, process) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
						h.Order[:], s.Domain, s.Site, toMicros(s.Stopped), s.BytesAfter, toMicros(s.Said), toMicros(s.Confirmed), int64(s.Within), s.Process)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetStops removes a site's confirmations of active orders, because another server, or none, is now enrolled for the
// site.
func (store *Halts) ForgetStops(ctx context.Context, domain, site string) error {
	return store.db.makeChange(ctx, "forget who obeys halt orders", func(x *tx) error {
		return x.execSQL("DELETE FROM stops WHERE domain = ? AND site = ? AND halt IN (SELECT id FROM halts WHERE resumed = 0)", domain, site)
	})
}

// List lists the active orders, or with all the newest 1 000 orders, newest first.
func (store *Halts) List(ctx context.Context, all bool) ([]Halt, error) {
	list, err := queryAll(ctx, store.db.read, "list halt orders", func(s scanner, h *Halt) error {
		return s.Scan(blob{h.Order[:]}, &h.Scope, &h.Value, &h.Reason, &h.By, moment{&h.At}, moment{&h.Resumed}, &h.ResumedBy)
	}, `SELECT id, scope, value, reason, by, at, resumed, resumed_by FROM halts WHERE resumed = 0 OR ?1
		ORDER BY at DESC, id DESC LIMIT iif(?1, ?2, -1)`, all, limitDefault)
	if err != nil {
		return nil, err
	}
	for n := range list {
		list[n].Confirmed, err = queryAll(ctx, store.db.read, "list halt orders", func(s scanner, c *Stop) error {
			return s.Scan(&c.Domain, &c.Site, moment{&c.Stopped}, &c.BytesAfter, moment{&c.Said}, moment{&c.Confirmed}, (*int64)(&c.Within), &c.Process)
		}, "SELECT domain, site, stopped, bytes_after, said, confirmed, within, process FROM stops WHERE halt = ? ORDER BY domain, site", list[n].Order[:])
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Audit appends an audit entry.
func (l *Ledger) Audit(ctx context.Context, d Deed) error {
	now := l.db.now()
	return l.db.makeChange(ctx, fmt.Sprintf("write the audit record %q", d.What), func(x *tx) error {
		return x.writeAudit(now, d)
	})
}

func (x *tx) writeAudit(now time.Time, d Deed) error {
	return x.execSQL("INSERT INTO audit (at, who, what, object, detail) VALUES (?, ?, ?, ?, ?)", toMicros(now), d.Who, d.What, d.Object, d.Detail)
}

// Deeds lists audit entries, newest first.
func (l *Ledger) Deeds(ctx context.Context, f DeedFilter) ([]Deed, error) {
	var c clause
	for _, t := range []struct{ column, value string }{{"who", f.Who}, {"what", f.What}, {"object", f.Object}} {
		if t.value != "" {
			c.addTerm(t.column+" = ?", t.value)
		}
	}
	if f.After != 0 {
		c.addTerm("(at, id) < (SELECT at, id FROM audit WHERE id = ?)", f.After)
	}
	if f.NoReads {
		c.addTerm("what <> 'vault get'")
	}
	from, to := rangeBounds(f.Since, f.Until)
	c.addTerm("at >= ? AND at < ?", from, to)
	return queryAll(ctx, l.db.read, "read the audit", func(s scanner, d *Deed) error {
		return s.Scan(&d.ID, moment{&d.At}, &d.Who, &d.What, &d.Object, &d.Detail)
	}, "SELECT id, at, who, what, object, detail FROM audit"+c.whereSQL()+" ORDER BY at DESC, id DESC LIMIT ?", append(c.args, rowLimit(f.Limit))...)
}
