package console

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/clock"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/query"
	"nightferry/internal/rights"
)

// sitePage is one site.
type sitePage struct {
	query.SiteStatus
	Mark      mark
	Now       time.Time
	Near      string
	Placed    bool
	Opens     string
	Bar       regionBar
	Events    []siteEvent
	Incidents []incidentView
	Orders    []core.HaltView
	May       bool
	Need      rights.Role
	Done      string // the action that was just requested
}

// siteEvent is one entry of the site's time axis.
type siteEvent struct {
	At, End    time.Time
	Kind, Text string
	Mark       mark
	Link       string
}

const siteRuns = 60

func (c *Console) site(r *request) (*page, error) {
	name := r.PathValue("site")
	list, err := c.b.Fleet.Sites(r.Context(), fleet.Scope{Site: name})
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, &api.Error{Code: "absent", Message: "there is no site " + name, Fix: "the page Sites lists them"}
	}
	s := &sitePage{SiteStatus: list[0], May: r.may(rights.Operator), Need: rights.Operator, Done: map[string]string{"sync": "The site was asked to start now.", "verify": "The site was asked to check its files.", "limit": "The limit is in force."}[r.get("done")]}
	s.Mark = markOf(siteState(&list[0]))
	at := spotOf(&list[0])
	s.Near, s.Placed = at.Near, at.Placed
	scope := fleet.Scope{Site: name}
	plan, err := c.plan(r.Context(), scope)
	if err != nil {
		return nil, err
	}
	s.Now = plan.From
	recent, err := c.b.Records.Runs(r.Context(), ledger.RunFilter{Site: name, Limit: siteRuns})
	if err != nil {
		return nil, err
	}
	windows, err := c.b.Forecast.Windows(r.Context(), query.WindowsRequest{Scope: scope, From: s.Now.Add(-reach), To: s.Now.Add(reach)})
	if err != nil {
		return nil, err
	}
	t := &timeline{now: s.Now, at: s.Now, runs: bySite(recent), plans: map[string][]query.PlanItem{name: plan.Items}, windows: map[string][]query.Opening{name: windows}}
	s.Bar.add(&list[0], s.Mark, t)
	s.Bar.draw(t)
	s.Opens = t.openText(&list[0])
	incidents, err := c.b.Fleet.Incidents(r.Context(), true)
	if err != nil {
		return nil, err
	}
	halts, err := c.b.Halts.List(r.Context(), true)
	if err != nil {
		return nil, err
	}
	s.collect(recent, incidentViews(incidents, c.b.Now()), halts)
	return &page{Title: name, Template: "site", Data: s, Live: true, Command: command("why", name)}, nil
}

// collect fills the time axis, the newest first.
func (s *sitePage) collect(recent []ledger.Run, incidents []incidentView, halts []core.HaltView) {
	for _, x := range recent {
		text := x.Channel + " release " + group(uint64(x.Number))
		if x.Cause != "" {
			text += ": " + x.Cause
		}
		s.Events = append(s.Events, siteEvent{x.Started, x.Finished, "run", text, runMark(string(x.State)), "/runs/" + x.ID.String()})
	}
	for _, v := range incidents {
		for _, m := range v.Members {
			if m.Site != s.Site || m.Domain != s.Domain {
				continue
			}
			s.Events = append(s.Events, siteEvent{m.First, m.Left, "incident", v.Kind + ": " + m.Text, v.Mark, "/incidents"})
			if v.Open && m.Left.IsZero() {
				s.Incidents = append(s.Incidents, v)
			}
			break
		}
	}
	for _, h := range halts {
		if !slices.ContainsFunc(h.Sites, func(x core.HaltSite) bool { return x.Site == s.Site && x.Domain == s.Domain }) {
			continue
		}
		to := "/halt"
		if !h.Order.IsZero() {
			to += "/" + h.Order.String()
		}
		s.Events = append(s.Events, siteEvent{h.At, h.Resumed, "halt", strings.TrimSpace(h.Scope+" "+h.Value) + ", by " + h.By + ": " + h.Reason, mark{"octagon", "bad", "halt"}, to})
		if h.Resumed.IsZero() {
			s.Orders = append(s.Orders, h)
		}
	}
	if !s.Enrolled.IsZero() {
		s.Events = append(s.Events, siteEvent{At: s.Enrolled, Kind: "enrolment", Text: "joined with a token", Mark: mark{"disc", "none", "enrolled"}})
	}
	slices.SortStableFunc(s.Events, func(a, b siteEvent) int { return b.At.Compare(a.At) })
}

// postSite sends a request to one site.
func (c *Console) postSite(r *request) (*page, error) {
	name, act := r.PathValue("site"), r.PathValue("act")
	scope := fleet.Scope{Site: name, Channel: r.get("channel")}
	var err error
	switch act {
	case "sync":
		_, err = c.b.Orders.Sync(r.Context(), core.SyncRequest{Scope: scope, Now: r.get("now") == "true", DryRun: r.get("dry_run") == "true"})
	case "verify":
		_, err = c.b.Orders.Verify(r.Context(), core.VerifyRequest{Scope: scope, Full: r.get("full") == "true", Repair: r.get("repair") == "true"})
	case "limit":
		q := core.LimitRequest{Scope: fleet.Scope{Site: name}, Rate: r.get("rate")}
		if !r.may(rights.Operator) { // before the form is judged
			_, err := c.b.Orders.Limit(r.Context(), q)
			return nil, refused(err)
		}
		if q.Rate != "" {
			if _, err := nights.ParseLimit(q.Rate); err != nil {
				return nil, &api.Error{Code: "usage", Message: "the rate: " + err.Error(), Fix: "write a rate such as 20Mbit, 0 to stop, or unlimited; nothing lifts the limit"}
			}
		}
		if text := r.get("for"); text != "" {
			d, err := time.ParseDuration(text)
			if err != nil || d <= 0 {
				return nil, &api.Error{Code: "usage", Message: "for " + text + ": want a time such as 90m or 8h", Fix: "leave it empty to limit the site until the limit is lifted"}
			}
			q.For = clock.Seconds(d)
		}
		_, err = c.b.Orders.Limit(r.Context(), q)
	default:
		err = &api.Error{Code: "absent", Message: "there is no action " + act, Fix: "use the forms of the site's page"}
	}
	if err != nil {
		return nil, err
	}
	return &page{redirect: link(sitePath(name), "done", act)}, nil
}

// sitesPage is the table of all sites.
type sitesPage struct {
	Filter filter
	Rows   []siteRow
	Total  int
}

func (c *Console) siteTable(r *request) (*page, error) {
	all, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	p := &sitesPage{Filter: r.filter(), Total: len(all)}
	p.Filter.offer(all)
	for i := range all {
		s := &all[i]
		m := markOf(siteState(s))
		if f := &p.Filter; f.Region != "" && s.Region != f.Region || f.Domain != "" && s.Domain != f.Domain || f.State != "" && !slices.ContainsFunc(s.Channels, func(ch query.ChannelStatus) bool { return ch.State == f.State }) {
			continue
		}
		p.Rows = append(p.Rows, siteRow{Site: s.Site, Domain: s.Domain, Region: s.Region, Zone: s.Zone, Mark: m, Channels: s.Channels, Connected: s.Connected, Enrolled: !s.Enrolled.IsZero(), Seen: s.Seen})
	}
	slices.SortStableFunc(p.Rows, func(a, b siteRow) int { return cmp.Compare(a.Site, b.Site) })
	return &page{Title: "Sites", Template: "sites", Data: p, Live: true, Command: command("sites")}, nil
}
