package api

import (
	"slices"

	"nightferry/internal/clock"
	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
)

// listOf returns the views of items, never nil. A list is a list also when it is empty.
func listOf[T, V any](items []T, view func(*T) V) []V {
	out := make([]V, 0, len(items))
	for i := range items {
		out = append(out, view(&items[i]))
	}
	return out
}

// viewOf returns the view of a call's result.
func viewOf[T, V any](x *T, err error, view func(*T) V) (v V, _ error) {
	if err != nil {
		return v, err
	}
	return view(x), nil
}

// viewsOf is listOf for a call's result.
func viewsOf[T, V any](items []T, err error, view func(*T) V) ([]V, error) {
	if err != nil {
		return nil, err
	}
	return listOf(items, view), nil
}

// pageOf returns at most limit of the items after the one with this key; a zero key means from the
// first, a zero limit all. A key that is gone ends the list.
func pageOf[T any, K comparable](items []T, after K, limit int, key func(*T) K) []T {
	var none K
	if after != none {
		n := slices.IndexFunc(items, func(x T) bool { return key(&x) == after })
		if n < 0 {
			return nil
		}
		items = items[n+1:]
	}
	if limit > 0 && len(items) > limit {
		items = items[:limit]
	}
	return items
}

func runOf(x *ledger.Run) Run                         { return Run(*x) }
func releaseOf(x *ledger.Release) Release             { return Release(*x) }
func exceptionOf(x *ledger.Exception) Exception       { return Exception(*x) }
func auditEntryOf(x *ledger.Deed) AuditEntry          { return AuditEntry(*x) }
func memberOf(x *ledger.Member) Member                { return Member(*x) }
func stopOf(x *ledger.Stop) Stop                      { return Stop(*x) }
func haltSiteOf(x *core.HaltSite) HaltSite            { return HaltSite(*x) }
func limitedOf(x *core.Limited) Limited               { return Limited(*x) }
func issuedOf(x *core.IssuedToken) IssuedToken        { return IssuedToken(*x) }
func alertTestOf(x *core.AlertTest) AlertTest         { return AlertTest(*x) }
func planItemOf(x *query.PlanItem) PlanItem           { return PlanItem(*x) }
func openingOf(x *query.Opening) Opening              { return Opening(*x) }
func haltChangeOf(x *core.HaltChange) HaltChange      { return HaltChange(*x) }
func measurementOf(x *ledger.Measurement) Measurement { return Measurement(*x) }

func detailOf(d *query.RunDetail) *RunDetail {
	return &RunDetail{Run(d.Run), LogHeader(d.Header), d.Log, d.Files, d.Bytes, d.Progress, (*Measurement)(d.Measured)}
}

func fileOf(f record.File) *File { return (*File)(&f) }

func eventOf(e *core.Event) *Event {
	return &Event{e.At, string(e.Kind), e.Domain, e.Site, e.Channel, e.Run, e.Text, e.Progress, (*Run)(e.Ended)}
}

func taskOf(s *tasks.Status) Task {
	return Task{s.Name, clock.Seconds(s.Period), clock.Seconds(s.Bound), s.Running, s.Success, s.Error, s.Overdue}
}

// SecretViews returns the views of a vault's secrets.
func SecretViews(list []vault.Info) []Secret {
	return listOf(list, func(s *vault.Info) Secret {
		return Secret{s.Name, listOf(s.Versions, func(v *vault.Version) SecretVersion { return SecretVersion(*v) })}
	})
}

func apiTokenOf(t *ledger.APIToken) APIToken {
	return APIToken{t.ID, t.Name, t.Role, t.Domain, t.Region, t.Issued, t.IssuedBy, t.Expires, t.Used, t.Revoked, t.RevokedBy}
}

func statusOf(s *query.Status) Status {
	return Status{s.At, s.Version, s.Repo, s.Store, s.Revision, s.Sites, s.Enrolled, s.Connected, s.Current, s.Running, s.Incidents, s.Halts, s.StoreRead, s.Unread,
		(*Rehearsal)(s.Rehearsal), listOf(s.Channels, releaseOf), listOf(s.Measured, measurementOf)}
}

func orderOf(x *core.Order) Order {
	return Order{x.Domain, x.Site, x.Channel, x.Number, x.Start, x.Connected, x.Opens, x.Halted, x.Contested}
}

func siteOf(s *query.SiteStatus) Site {
	return Site{s.Site, s.Domain, s.Region, s.Zone, s.Latitude, s.Longitude, s.Enrolled, s.Revoked, s.RevokedWhy, s.JWTExpires, s.Contested, s.Connected, s.Seen, s.Version, s.ClockOffset, s.Spooled, s.Revision, s.Wanted,
		listOf(s.Channels, siteChannelOf)}
}

func siteChannelOf(c *query.ChannelStatus) SiteChannel {
	return SiteChannel{c.Channel, c.Target, c.Wants, c.Holds, c.Since, c.Verified, c.State, c.Why, listOf(c.Reasons, reasonOf), c.Run, c.LastEnd, c.LastWhy, c.Progress,
		(*Waiting)(c.Waiting), (*Measurement)(c.Measured)}
}

func reasonOf(r *query.Reason) Reason {
	return Reason{r.Domain, r.Site, r.Channel, r.What, r.Since, r.Cause, r.Remedy}
}

func placeOf(p *query.Place) Place {
	return Place{p.Domain, p.Site, p.Release, p.Present, p.Size, p.Digest, p.Since, p.Verified, p.Current, p.State, p.Found, p.Cause, p.Run, (*Waiting)(p.Waiting), (*Measurement)(p.Measured)}
}

func incidentOf(i *query.Incident) Incident {
	return Incident{i.ID, i.Key, i.Kind, i.Scope, i.Text, i.Opened, i.Last, i.Count, i.Resolved, i.Closed, i.Acked, i.Silent, listOf(i.Members, memberOf), i.Remedy}
}

func planOf(p *query.NightPlan) Plan {
	return Plan{p.From, p.Days, p.Currency, listOf(p.Items, planItemOf)}
}

func haltOf(h *core.HaltView) Halt {
	return Halt{h.Order, h.Scope, h.Value, h.Reason, h.By, h.At, h.Resumed, h.ResumedBy, listOf(h.Confirmed, stopOf), h.Unstored, listOf(h.Sites, haltSiteOf)}
}

func sessionOf(s *ledger.Session) Session {
	return Session{s.ID, s.Person, s.Subject, s.Address, s.Started, s.Seen, s.Expires}
}
