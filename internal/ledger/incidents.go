package ledger

import (
	"context"
	"fmt"
	"time"
)

// OpenIncident opens an incident. If one with the same key is open, it adds the report to it and returns opened =
// false.
func (store *Incidents) OpenIncident(ctx context.Context, p IncidentReport) (opened bool, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("open incident %s", p.Key), func(x *tx) (err error) {
		opened, err = x.openIncident(now, p)
		return err
	})
	return opened, err
}

func (x *tx) openIncident(now time.Time, p IncidentReport) (opened bool, err error) {
	if p.Key == "" {
		return false, fmt.Errorf("an incident needs a key")
	}
	var id, count int64
	err = x.queryRow(`INSERT INTO incidents (key, kind, scope, text, opened, last, count, silenced)
		VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1, coalesce((SELECT max(silenced) FROM incidents WHERE key = ?1 AND silenced > 0), 0))
		ON CONFLICT (key) WHERE resolved = 0 DO UPDATE SET text = excluded.text, scope = excluded.scope, last = excluded.last, count = count + 1 RETURNING id, count`,
		p.Key, p.Kind, ScopeOf(p.Site), p.Text, toMicros(now)).Scan(&id, &count)
	if err != nil {
		return false, err
	}
	return count == 1, x.execSQL(`INSERT INTO members (incident, domain, site, text, first, last, count) VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1)
		ON CONFLICT (incident, domain, site) DO UPDATE SET text = excluded.text, last = excluded.last, count = count + 1, left_at = 0`,
		id, p.Domain, p.Site, p.Text, toMicros(now))
}

// ScopeOf names in words what an incident's text is about: the member that reported last.
func ScopeOf(site string) string {
	if site == "" {
		return "core"
	}
	return "site " + site
}

// ResolveMember records that an incident has ended at one site, and resolves it when that was the last member. It does nothing
// if the site is not a member.
func (store *Incidents) ResolveMember(ctx context.Context, key, domain, site string) (resolved bool, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("leave incident %s", key), func(x *tx) (err error) {
		resolved, err = x.resolveIncident(now, key, domain, site)
		return err
	})
	return resolved && err == nil, err
}

func (x *tx) resolveIncident(now time.Time, key, domain, site string) (resolved bool, err error) {
	n, err := x.execCount(`UPDATE members SET left_at = ? WHERE domain = ? AND site = ? AND left_at = 0
		AND incident = (SELECT id FROM incidents WHERE key = ? AND resolved = 0)`, toMicros(now), domain, site, key)
	if err != nil || n == 0 {
		return false, err
	}
	n, err = x.execCount(`UPDATE incidents SET resolved = ? WHERE key = ? AND resolved = 0
		AND NOT EXISTS (SELECT 1 FROM members WHERE incident = id AND left_at = 0)`, toMicros(now), key)
	if err != nil || n == 1 {
		return n == 1, err
	}
	return false, x.describeIncident(key)
}

// describeIncident makes the text and the scope of an open incident those of the member that reported last among
// those that remain.
func (x *tx) describeIncident(key string) error {
	var id int64
	var site, text string
	err := x.queryRow(`SELECT i.id, m.site, m.text FROM incidents i JOIN members m ON m.incident = i.id
		WHERE i.key = ? AND i.resolved = 0 AND m.left_at = 0 ORDER BY m.last DESC LIMIT 1`, key).Scan(&id, &site, &text)
	if err != nil {
		return err
	}
	return x.execSQL("UPDATE incidents SET scope = ?, text = ? WHERE id = ?", ScopeOf(site), text, id)
}

// CloseIncident ends an open incident for all members on an operator's request. It writes the audit entry in the same
// transaction, with the incident's key as object.
func (store *Incidents) CloseIncident(ctx context.Context, id int64, d Deed) (i Incident, err error) {
	now := store.db.now()
	err = store.db.makeChange(ctx, fmt.Sprintf("%s %d", d.What, id), func(x *tx) error {
		if i, err = x.annotateIncident(now, id, d, "resolved = ?1, closed", d.Detail); err != nil {
			return err
		}
		return x.execSQL("UPDATE members SET left_at = ? WHERE incident = ? AND left_at = 0", toMicros(now), id)
	})
	return i, err
}

// AckIncident records that an operator has acknowledged an open incident, and until when no alert is sent of it, nor of
// another incident with its key; the zero time ends such a silence. It writes the audit entry in the same transaction.
func (store *Incidents) AckIncident(ctx context.Context, id int64, silent time.Time, d Deed) (i Incident, err error) {
	note := d.Detail
	if !silent.IsZero() {
		d.Detail += ", no alert until " + silent.UTC().Format("2006-01-02 15:04 UTC")
	}
	err = store.db.makeChange(ctx, fmt.Sprintf("%s %d", d.What, id), func(x *tx) error {
		if i, err = x.annotateIncident(store.db.now(), id, d, "acked", note); err != nil {
			return err
		}
		if err := x.execSQL("UPDATE incidents SET silenced = 0 WHERE key = ? AND silenced > 0", i.Key); err != nil {
			return err
		}
		i.Silent = silent
		return x.execSQL("UPDATE incidents SET silenced = ? WHERE id = ?", toMicros(silent), id)
	})
	return i, err
}

// annotateIncident writes an operator's note to a column of an open incident, and the audit entry.
func (x *tx) annotateIncident(now time.Time, id int64, d Deed, column, note string) (i Incident, err error) {
	err = x.queryRow("UPDATE incidents SET "+column+" = ?2 WHERE id = ?3 AND resolved = 0 AND ?1 > 0 RETURNING id, key, kind, scope, text", toMicros(now), d.Who+": "+note, id).
		Scan(&i.ID, &i.Key, &i.Kind, &i.Scope, &i.Text)
	if err != nil {
		return i, err
	}
	d.Object = fmt.Sprintf("incident %d %s", id, i.Key)
	return i, x.writeAudit(now, d)
}

// List lists the open incidents with their members, or with all the newest 1 000, newest first.
func (store *Incidents) List(ctx context.Context, all bool) ([]Incident, error) {
	list, err := queryAll(ctx, store.db.read, "list incidents", func(s scanner, i *Incident) error {
		return s.Scan(&i.ID, &i.Key, &i.Kind, &i.Scope, &i.Text, moment{&i.Opened}, moment{&i.Last}, &i.Count, moment{&i.Resolved}, &i.Closed, &i.Acked, moment{&i.Silent})
	}, `SELECT id, key, kind, scope, text, opened, last, count, resolved, closed, acked, silenced FROM incidents WHERE resolved = 0 OR ?1
		ORDER BY id DESC LIMIT iif(?1, ?2, -1)`, all, limitDefault)
	if err != nil {
		return nil, err
	}
	for n := range list {
		list[n].Members, err = queryAll(ctx, store.db.read, "list incidents", func(s scanner, m *Member) error {
			return s.Scan(&m.Domain, &m.Site, &m.Text, moment{&m.First}, moment{&m.Last}, &m.Count, moment{&m.Left})
		}, "SELECT domain, site, text, first, last, count, left_at FROM members WHERE incident = ? ORDER BY domain, site", list[n].ID)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
