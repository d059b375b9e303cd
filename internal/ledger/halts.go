package ledger

import (
	"context"
	"fmt"
	"time"
)

// AddHalt keeps an order. Adding it again changes nothing; another one with
// the same id is ErrConflict. Resumed, ResumedBy and Confirmed are ignored.
func (l *Ledger) AddHalt(ctx context.Context, h Halt) error {
	order, err := number("order", h.Order)
	if err != nil {
		return err
	}
	return l.update(ctx, fmt.Sprintf("keep halt order %d", h.Order), func(x *tx) error {
		n, err := x.count(`INSERT INTO halts (id, scope, value, reason, by, at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET by = by WHERE (scope, value, reason, at) = (excluded.scope, excluded.value, excluded.reason, excluded.at)`,
			order, h.Scope, h.Value, h.Reason, h.By, micros(h.At))
		if err == nil && n == 0 {
			err = fmt.Errorf("%w under this number", ErrConflict)
		}
		return err
	})
}

// ReplaceHalt makes the number of an order that another one had that of h,
// active and obeyed by nobody yet.
func (l *Ledger) ReplaceHalt(ctx context.Context, h Halt) error {
	return l.update(ctx, fmt.Sprintf("keep halt order %d", h.Order), func(x *tx) error {
		n, err := x.count("UPDATE halts SET scope = ?, value = ?, reason = ?, by = ?, at = ?, resumed = 0, resumed_by = '' WHERE id = ?",
			h.Scope, h.Value, h.Reason, h.By, micros(h.At), int64(h.Order))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		return x.exec("DELETE FROM stops WHERE halt = ?", int64(h.Order))
	})
}

// Resume notes that an order is lifted; ErrNotFound when it is not active.
func (l *Ledger) Resume(ctx context.Context, order uint64, by string) error {
	now := l.now()
	return l.update(ctx, fmt.Sprintf("lift halt order %d", order), func(x *tx) error {
		n, err := x.count("UPDATE halts SET resumed = ?, resumed_by = ? WHERE id = ? AND resumed = 0", micros(now), by, int64(order))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// Confirm notes that a site obeys an order. The first word of a site counts.
// ErrNotFound when there is no such order.
func (l *Ledger) Confirm(ctx context.Context, order uint64, s Stop) error {
	return l.update(ctx, fmt.Sprintf("note who obeys halt order %d", order), func(x *tx) error {
		var known int
		if err := x.row("SELECT 1 FROM halts WHERE id = ?", int64(order)).Scan(&known); err != nil {
			return err
		}
		return x.exec("INSERT INTO stops (halt, domain, site, stopped, bytes_after) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			int64(order), s.Domain, s.Site, micros(s.Stopped), s.BytesAfter)
	})
}

// Halts lists the active orders, or with all the newest 1 000, the newest
// first.
func (l *Ledger) Halts(ctx context.Context, all bool) ([]Halt, error) {
	list, err := many(ctx, l.read, "list halt orders", func(s scanner, h *Halt) error {
		return s.Scan(&h.Order, &h.Scope, &h.Value, &h.Reason, &h.By, moment{&h.At}, moment{&h.Resumed}, &h.ResumedBy)
	}, `SELECT id, scope, value, reason, by, at, resumed, resumed_by FROM halts WHERE resumed = 0 OR ?1
		ORDER BY id DESC LIMIT iif(?1, ?2, -1)`, all, limitDefault)
	if err != nil {
		return nil, err
	}
	for n := range list {
		list[n].Confirmed, err = many(ctx, l.read, "list halt orders", func(s scanner, c *Stop) error {
			return s.Scan(&c.Domain, &c.Site, moment{&c.Stopped}, &c.BytesAfter)
		}, "SELECT domain, site, stopped, bytes_after FROM stops WHERE halt = ? ORDER BY domain, site", int64(list[n].Order))
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Audit notes who did what.
func (l *Ledger) Audit(ctx context.Context, d Deed) error {
	now := l.now()
	return l.update(ctx, fmt.Sprintf("write the audit record %q", d.What), func(x *tx) error {
		return x.audit(now, d)
	})
}

func (x *tx) audit(now time.Time, d Deed) error {
	return x.exec("INSERT INTO audit (at, who, what, object, detail) VALUES (?, ?, ?, ?, ?)", micros(now), d.Who, d.What, d.Object, d.Detail)
}

// Deeds lists the audit, the newest first.
func (l *Ledger) Deeds(ctx context.Context, f DeedFilter) ([]Deed, error) {
	var c clause
	for _, t := range []struct{ column, value string }{{"who", f.Who}, {"what", f.What}, {"object", f.Object}} {
		if t.value != "" {
			c.add(t.column+" = ?", t.value)
		}
	}
	if f.NoReads {
		c.add("what <> 'vault get'")
	}
	from, to := span(f.Since, f.Until)
	c.add("at >= ? AND at < ?", from, to)
	return many(ctx, l.read, "read the audit", func(s scanner, d *Deed) error {
		return s.Scan(&d.ID, moment{&d.At}, &d.Who, &d.What, &d.Object, &d.Detail)
	}, "SELECT id, at, who, what, object, detail FROM audit"+c.where()+" ORDER BY id DESC LIMIT ?", append(c.args, limit(f.Limit))...)
}
