package query

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/nights"
	"nightferry/internal/releases"
	"nightferry/internal/runs"
	"nightferry/internal/schedule"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// PlanRequest asks for a forecast of the coming nights.
type PlanRequest struct {
	Scope fleet.Scope
	At    time.Time // from when; zero: now
	Days  int       // 1 to 366; 0: 1
}

// PlanItem is the forecast for one release at one site.
type PlanItem struct {
	Site    string              `json:"site"`
	Domain  string              `json:"domain"`
	Region  string              `json:"region"`
	Channel string              `json:"channel"`
	Release trust.ReleaseNumber `json:"release"` // 0: not published yet
	Zone    string              `json:"zone"`
	Ready   time.Time           `json:"ready"`
	Start   time.Time           `json:"start,omitzero"` // zero: not within the days
	End     time.Time           `json:"end,omitzero"`   // zero: not within the days
	Active  ledger.Seconds      `json:"active_seconds"` // of transfer, within the days
	Nights  int                 `json:"nights"`         // 0: it never completes
	Tonight bool                `json:"tonight"`        // the release arrives in the window in which its run starts
	Halted  bool                `json:"halted,omitempty"`
	Blocked string              `json:"blocked,omitempty"` // why it does not start until a person acts: halted on the site, disk full, target emptied, target refused
	Assumed bool                `json:"assumed,omitempty"` // the site's rate was never measured
	Bytes   int64               `json:"bytes"`             // of content that the site lacks, before compression
	// Estimated: Bytes is the amount that earlier releases took, because the release is not published yet, or the bucket no longer
	// has the one that the site holds.
	Estimated bool    `json:"estimated,omitempty"`
	Requests  int64   `json:"requests"`
	Cost      float64 `json:"cost"`
}

// NightPlan is the forecast for the coming nights.
type NightPlan struct {
	From     time.Time  `json:"from"`
	Days     int        `json:"days"`
	Currency string     `json:"currency"`
	Items    []PlanItem `json:"items"`
}

const (
	// A pull costs one request per bytesPerRequest, and a handful more.
	bytesPerRequest = 16 << 20
	handful         = 8
	// measurable is how many bytes a run must have fetched before its speed is used as the line's
	// rate.
	measurable = 1 << 20
)

// Plan predicts the runs of each site from measurements in the ledger.
func (v *Service) Plan(ctx context.Context, r PlanRequest) (*NightPlan, error) {
	if r.Days == 0 {
		r.Days = 1
	}
	if r.Days < 1 || r.Days > 366 {
		return nil, fmt.Errorf("plan %d days: want 1 to 366", r.Days)
	}
	if r.At.IsZero() {
		r.At = v.o.Wall()
	}
	s := v.o.World()
	list, err := s.Fleet.Select(r.Scope)
	if err != nil {
		return nil, err
	}
	held, err := v.Holdings(ctx, ledger.Filter{Domain: r.Scope.Domain, Site: r.Scope.Site, Channel: r.Scope.Channel})
	if err != nil {
		return nil, err
	}
	past, err := v.readMeasured(ctx)
	if err != nil {
		return nil, err
	}
	q := schedule.Question{From: r.At, Days: r.Days, Prices: s.Prices}
	always, err := window.ParseRule("all")
	if err != nil {
		return nil, err
	}
	zones := map[string]*fleet.Site{}
	lost, err := v.lostTargets(ctx, ledger.Filter{Domain: r.Scope.Domain, Site: r.Scope.Site, Channel: r.Scope.Channel})
	if err != nil {
		return nil, err
	}
	blocked := map[[2]string]string{} // why nothing starts, by site and channel
	estimated := map[[2]string]bool{} // the need of the release that is due
	for i := range list {
		site := &list[i]
		zones[site.Name] = site
		a := wire.Address{Domain: site.Domain, Site: site.Name}
		x := schedule.Site{Name: site.Name, Domain: site.Domain, Region: site.Region, Place: s.Nights.Place(site.Name), Rates: v.ratesOf(site, a, r.At), Rate: past.rate[a]}
		for _, p := range site.Placements {
			rule, ok := s.Nights.Rule(site.Name, p.Channel)
			if !ok {
				rule = always
			}
			gone, isLost := lost[Row{a, p.Channel}]
			why := v.blockedReason(a, p.Channel)
			if why == "" && isLost {
				why = "target " + string(gone.State)
			}
			if why != "" {
				blocked[[2]string{site.Name, p.Channel}] = why
				q.Halts = append(q.Halts, schedule.Halt{Site: site.Name, Channel: p.Channel})
			}
			x.Channels = append(x.Channels, schedule.Channel{Name: p.Channel, Windows: rule, Priority: p.Priority})
			rel, ok := v.o.Newest.Of(p.Channel)
			h := held[Row{a, p.Channel}]
			if isLost {
				h = ledger.Holding{} // all of the release is fetched anew
			}
			if ok && (h.Number != rel.Number || h.Release != rel.Digest) {
				need, rough, err := v.needOf(ctx, &h, rel, past)
				if err != nil {
					return nil, err
				}
				estimated[[2]string{site.Name, p.Channel}] = rough
				q.Due = append(q.Due, schedule.Due{Site: site.Name, Channel: p.Channel, Release: rel.Number, Bytes: need, Requests: estimateRequests(need), Since: rel.Published})
			}
		}
		q.Sites = append(q.Sites, x)
	}
	q.Coming = v.comingReleases(s, r, past)
	q.Halts = append(q.Halts, haltsOf(v.o.Halts())...)
	out := &NightPlan{From: r.At, Days: r.Days, Currency: s.Currency, Items: []PlanItem{}}
	for _, it := range schedule.Forecast(q) {
		site, why := zones[it.Site], blocked[[2]string{it.Site, it.Channel}]
		out.Items = append(out.Items, PlanItem{Site: it.Site, Domain: site.Domain, Region: site.Region, Channel: it.Channel, Release: it.Release, Zone: site.Zone,
			Ready: it.Ready, Start: it.Start, End: it.End, Active: ledger.Seconds(it.Active), Nights: it.Nights, Tonight: it.Tonight(), Halted: it.Halted && why == "", Blocked: why, Assumed: it.Assumed,
			Bytes: it.Bytes, Estimated: it.Release == 0 || estimated[[2]string{it.Site, it.Channel}], Requests: it.Requests, Cost: it.Cost})
	}
	return out, nil
}

// comingReleases lists the releases that the cadences will publish within the days.
func (v *Service) comingReleases(s World, r PlanRequest, past *measured) (out []schedule.Coming) {
	end := r.At.AddDate(0, 0, r.Days)
	for _, ch := range s.Fleet.Channels {
		if r.Scope.Channel != "" && r.Scope.Channel != ch.Name {
			continue
		}
		rel, ok := v.o.Newest.Of(ch.Name)
		if !ok {
			continue // the size of a release is unknown if the channel was never published
		}
		need := past.estimateNeed(rel)
		for at := r.At; ; {
			next, ok := s.Nights.Cadence(ch.Name).Next(at, s.Nights.Openings(ch.Name))
			if !ok || !next.Before(end) {
				break
			}
			out = append(out, schedule.Coming{Channel: ch.Name, At: next, Bytes: need, Requests: estimateRequests(need)})
			at = next
		}
	}
	return out
}

func estimateRequests(bytes int64) int64 { return bytes/bytesPerRequest + handful }

// ratesOf returns the timetable in force at a site: an operator's limit, or else the configured
// one.
func (v *Service) ratesOf(s *fleet.Site, a wire.Address, at time.Time) window.Timetable {
	text := nights.Configured(s)
	if st := v.o.Wanted(a); st.Limit != "" && (st.LimitUntil == 0 || at.Before(time.Unix(st.LimitUntil, 0))) {
		text = st.Limit
	}
	t, err := nights.ParseLimit(text)
	if err != nil {
		return window.Timetable{} // never: it was written by us
	}
	return t
}

func haltsOf(o *halt.Orders) (out []schedule.Halt) {
	for _, x := range o.Active {
		h := schedule.Halt{}
		switch x.Scope {
		case halt.Region:
			h.Region = x.Value
		case halt.Domain:
			h.Domain = x.Value
		case halt.Site:
			h.Site = x.Value
		case halt.Channel:
			h.Channel = x.Value
		}
		out = append(out, h)
	}
	return out
}

// needOf returns how many bytes a site must fetch of a release. It compares the two manifests. If
// the bucket no longer has the release that the site holds, it returns the usual amount, an estimate.
func (v *Service) needOf(ctx context.Context, h *ledger.Holding, rel ledger.Release, past *measured) (need int64, estimated bool, err error) {
	if h.Number == 0 {
		return rel.Bytes, false, nil
	}
	n, known, err := v.o.Releases.Delta(ctx, releases.Key{Channel: rel.Channel, Number: h.Number, Digest: h.Release}, releases.Key{Channel: rel.Channel, Number: rel.Number, Digest: rel.Digest})
	if err != nil || known {
		return n, false, err
	}
	return past.estimateNeed(rel), true, nil
}

// blockedReason returns why a site does not start a channel even if a window is open: the agent was
// halted on the site, or its disk is full.
func (v *Service) blockedReason(a wire.Address, channel string) string {
	x, known := v.o.Sites.Site(a)
	switch {
	case !known:
		return ""
	case x.Halted != nil:
		return "halted on the site"
	case v.o.Incidents.Has(kinds.SiteSays+"-disk", channel, a), v.o.Incidents.Has(kinds.SiteSays+"-disk", "", a):
		return "disk full"
	}
	return ""
}

// measured holds measurements of past runs, from which Plan predicts future ones.
type measured struct {
	rate  map[wire.Address]int64 // bytes per second, from a site's last run that was large enough
	usual map[string]int64       // average bytes fetched by sites that held the previous release
}

func (v *Service) readMeasured(ctx context.Context) (*measured, error) {
	runs, err := v.o.Runs.Runs(ctx, ledger.RunFilter{State: runs.Verified, Limit: 5000})
	if err != nil {
		return nil, err
	}
	m := &measured{rate: map[wire.Address]int64{}, usual: map[string]int64{}}
	count := map[string]int64{}
	for _, r := range runs { // the newest first
		if r.Site == "" || r.DryRun {
			continue
		}
		a := wire.Address{Domain: r.Domain, Site: r.Site}
		if took := r.Finished.Sub(r.Started).Seconds(); m.rate[a] == 0 && r.Totals.Fetched >= measurable && took > 0 {
			m.rate[a] = max(1, int64(float64(r.Totals.Fetched)/took))
		}
		if r.Parent == 0 || r.Parent == r.Number {
			continue // all of it, or nothing
		}
		m.usual[r.Channel] += r.Totals.Fetched
		count[r.Channel]++
	}
	for ch, n := range count {
		m.usual[ch] /= n
	}
	return m, nil
}

// estimateNeed estimates how much a site must fetch of the release after the one that it holds: the usual
// amount, or all of it if that is unknown.
func (m *measured) estimateNeed(rel ledger.Release) int64 {
	if n, ok := m.usual[rel.Channel]; ok {
		return n
	}
	return rel.Bytes
}
