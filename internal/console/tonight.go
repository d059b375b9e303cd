package console

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/rights"
)

// reach is how far the page looks back and ahead.
const reach = 24 * time.Hour

// maxRuns bounds the runs that a page reads.
const maxRuns = 20_000

// night is the content of Tonight.
type night struct {
	Now, At  time.Time // by the calendar
	Offset   int       // hours from Now to At
	Filter   filter
	Wall     bool
	Headline string
	Tiles    []tile
	Globe    globe
	Regions  []regionBar
	Hours    []hourLink
	Rows     []siteRow
	Partial  bool // more runs than the page reads
}

type tile struct {
	Number, Label, Link string
	Mark                mark
}

// globe is the map at a time.
type globe struct {
	Width, Height float64
	Outline       string
	Nights        []string // where the sun is below the horizon, and deeper
	SunX, SunY    float64
	Pins          []pin
	Nowhere       []pin // without a place on the map
	Near          int   // pins that are placed by their time zone
	Legend        []mark
}

type hourLink struct {
	Offset      int
	Label, Link string
	Time        time.Time
	Chosen      bool
}

// siteRow is a site in the table, which shows the same as the map.
type siteRow struct {
	Site, Domain, Region, Zone, Near string
	Mark                             mark
	What                             string
	Local                            time.Time
	Channels                         []query.ChannelStatus
	Connected, Enrolled              bool
	Seen                             time.Time
	Opens                            string
}

// filter selects sites in the URL.
type filter struct {
	Region, Domain, State string
	Regions, Domains      []string // to choose from
	States                []string
}

func (r *request) filter() filter {
	return filter{Region: r.get("region"), Domain: r.get("domain"), State: r.get("state"), States: query.States()}
}

func (f *filter) scope() fleet.Scope { return fleet.Scope{Region: f.Region, Domain: f.Domain} }

// offer lists the regions and domains that the sites have.
func (f *filter) offer(all []query.SiteStatus) {
	for _, s := range all {
		f.Regions, f.Domains = append(f.Regions, s.Region), append(f.Domains, s.Domain)
	}
	for _, list := range []*[]string{&f.Regions, &f.Domains} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
}

// moment returns the time that the URL names by at, at most reach away from now.
func (r *request) moment(now time.Time) (time.Time, error) {
	text := r.get("at")
	if text == "" {
		return now, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(max(-reach, min(reach, d))), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return now, &api.Error{Code: "usage", Message: fmt.Sprintf("at %q: want a time such as 2026-01-31T22:00:00Z, or a distance such as -6h", text), Fix: "leave it out to see the present"}
	}
	if at.Before(now.Add(-reach)) {
		return now.Add(-reach), nil
	}
	if at.After(now.Add(reach)) {
		return now.Add(reach), nil
	}
	return at, nil
}

func (c *Console) tonight(r *request) (*page, error) {
	if r.who.Role == rights.Logs {
		return &page{redirect: "/logs"}, nil
	}
	n, err := c.nightOf(r)
	if err != nil {
		return nil, err
	}
	p := &page{Title: "Tonight", Template: "tonight", Data: n, Live: n.Offset == 0, Wall: n.Wall,
		Command: command(slices.DeleteFunc([]string{"sites", flagOf("--region", n.Filter.Region), flagOf("--domain", n.Filter.Domain), flagOf("--state", n.Filter.State)}, func(s string) bool { return s == "" })...)}
	return p, nil
}

// flagOf writes a flag with its value, or nothing.
func flagOf(name, value string) string {
	if value == "" {
		return ""
	}
	return name + "=" + value
}

func (c *Console) nightOf(r *request) (*night, error) {
	n := &night{Filter: r.filter(), Wall: r.get("wall") == "1"}
	all, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	n.Filter.offer(all)
	ctx := r.Context()
	plan, err := c.plan(ctx, n.Filter.scope())
	if err != nil {
		return nil, err
	}
	n.Now = plan.From
	if n.At, err = r.moment(n.Now); err != nil {
		return nil, err
	}
	n.Offset = int(n.At.Sub(n.Now).Round(time.Hour) / time.Hour)
	past, err := c.b.Records.Runs(ctx, ledger.RunFilter{Domain: n.Filter.Domain, Since: n.Now.Add(-reach - 12*time.Hour), Limit: maxRuns})
	if err != nil {
		return nil, err
	}
	n.Partial = len(past) == maxRuns
	windows, err := c.b.Forecast.Windows(ctx, query.WindowsRequest{Scope: n.Filter.scope(), From: n.Now.Add(-reach), To: n.Now.Add(reach)})
	if err != nil {
		return nil, err
	}
	t := timeline{now: n.Now, at: n.At, runs: bySite(past), plans: map[string][]query.PlanItem{}, windows: map[string][]query.Opening{}}
	for _, x := range plan.Items {
		t.plans[x.Site] = append(t.plans[x.Site], x)
	}
	for _, w := range windows {
		t.windows[w.Site] = append(t.windows[w.Site], w)
	}
	n.fill(all, &t)
	n.Hours = n.hourLinks(r)
	return n, nil
}

// sites are the sites that the principal may see, shared by all pages.
func (c *Console) sites(r *request) ([]query.SiteStatus, error) {
	return shared(r, &c.memo, "sites", func(ctx context.Context) ([]query.SiteStatus, error) { return c.b.Fleet.Sites(ctx, fleet.Scope{}) })
}

// plan is the forecast of a day from now.
func (c *Console) plan(ctx context.Context, scope fleet.Scope) (*query.NightPlan, error) {
	return c.b.Forecast.Plan(ctx, query.PlanRequest{Scope: scope, Days: 1})
}

// fill chooses the sites and shows them.
func (n *night) fill(all []query.SiteStatus, t *timeline) {
	n.Globe = globeAt(n.At)
	counts := map[string]int{}
	regions := map[string]*regionBar{}
	current, connected, shown, running := 0, 0, 0, 0
	used := map[string]mark{}
	for i := range all {
		s := &all[i]
		if f := &n.Filter; f.Region != "" && s.Region != f.Region || f.Domain != "" && s.Domain != f.Domain {
			continue
		}
		m, what := t.stateOf(s)
		if n.Filter.State != "" && n.Filter.State != m.Word {
			continue
		}
		shown++
		counts[m.Tone]++
		used[m.Shape+m.Tone] = m
		if siteState(s) == query.Current {
			current++
		}
		if s.Connected {
			connected++
		}
		for _, ch := range s.Channels {
			if ch.State == query.Running {
				running++
			}
		}
		at := spotOf(s)
		p := pin{spot: at, Site: s.Site, Mark: m, What: what}
		if !at.Placed {
			n.Globe.Nowhere = append(n.Globe.Nowhere, p)
		} else {
			n.Globe.Pins = append(n.Globe.Pins, p)
			if at.Near != "" {
				n.Globe.Near++
			}
		}
		n.Rows = append(n.Rows, siteRow{Site: s.Site, Domain: s.Domain, Region: s.Region, Zone: s.Zone, Near: at.Near, Mark: m, What: what, Local: inZone(n.At, s.Zone),
			Channels: s.Channels, Connected: s.Connected, Enrolled: !s.Enrolled.IsZero(), Seen: s.Seen, Opens: t.openText(s)})
		b := regions[s.Region]
		if b == nil {
			b = &regionBar{Region: s.Region}
			regions[s.Region] = b
		}
		b.add(s, m, t)
	}
	for _, b := range regions {
		b.draw(t)
		n.Regions = append(n.Regions, *b)
	}
	slices.SortFunc(n.Regions, func(a, b regionBar) int { return cmp.Compare(a.Region, b.Region) })
	slices.SortStableFunc(n.Rows, func(a, b siteRow) int { return worse(b.Mark.Word) - worse(a.Mark.Word) })
	n.Globe.Pins = arrange(n.Globe.Pins)
	for _, m := range used {
		n.Globe.Legend = append(n.Globe.Legend, m)
	}
	slices.SortFunc(n.Globe.Legend, func(a, b mark) int { return cmp.Or(worse(a.Word)-worse(b.Word), cmp.Compare(a.Word, b.Word)) })
	n.Headline = fmt.Sprintf("%s of %s hold everything they should", group(current), count(shown, "site"))
	if shown == 0 {
		n.Headline = "No site is chosen"
	} else if current == shown {
		n.Headline = fmt.Sprintf("All %s hold everything they should", count(shown, "site"))
	}
	n.Tiles = []tile{{group(current), "current", link("/", "state", query.Current), markOf(query.Current)},
		{group(running), "runs under way", "/live", markOf(query.Running)},
		{group(connected), "connected", "/sites", mark{"disc", "none", "connected"}}}
}

func globeAt(at time.Time) globe {
	g := globe{Width: mapWidth, Height: mapHeight, Outline: outlinePath()}
	for _, altitude := range []float64{-0.8, -6, -12} {
		g.Nights = append(g.Nights, nightPath(at, altitude))
	}
	lon, lat := sunAt(at)
	g.SunX, g.SunY = project(lon, lat)
	return g
}

// hourLinks are a link for each hour of the slider.
func (n *night) hourLinks(r *request) (out []hourLink) {
	for h := -24; h <= 24; h++ {
		x := hourLink{Offset: h, Time: n.Now.Add(time.Duration(h) * time.Hour), Chosen: h == n.Offset}
		at := ""
		if h != 0 {
			at = fmt.Sprintf("%dh", h)
		}
		x.Link = link("/", "at", at, "region", n.Filter.Region, "domain", n.Filter.Domain, "state", n.Filter.State, "wall", r.get("wall"))
		switch {
		case h == 0:
			x.Label = "now"
		case h%6 == 0:
			x.Label = fmt.Sprintf("%+d h", h)
		}
		out = append(out, x)
	}
	return out
}

// inZone is a time by a site's clock. An unknown zone leaves it in UTC.
func inZone(t time.Time, zone string) time.Time {
	if l, err := time.LoadLocation(zone); err == nil && !t.IsZero() {
		return t.In(l)
	}
	return t.UTC()
}
