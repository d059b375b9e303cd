package console

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/rights"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

const perPage = 200

// runsPage lists runs.
type runsPage struct {
	List                 []ledger.Run
	Site, Domain         string
	Channel, State, Next string
	Open                 bool
	Channels, States     []string
}

func (c *Console) runs(r *request) (*page, error) {
	p := &runsPage{Site: r.get("site"), Domain: r.get("domain"), Channel: r.get("channel"), State: r.get("state"), Open: r.get("open") == "true"}
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	p.Channels = channelsOf(sites)
	for _, s := range runs.All() {
		p.States = append(p.States, string(s))
	}
	f := ledger.RunFilter{Site: p.Site, Domain: p.Domain, Channel: p.Channel, State: runs.State(p.State), Open: p.Open, Limit: perPage}
	if text := r.get("after"); text != "" {
		if f.After, err = runs.ParseID(text); err != nil {
			return nil, &api.Error{Code: "usage", Message: err.Error(), Fix: "follow the link Older"}
		}
	}
	if p.List, err = c.b.Records.Runs(r.Context(), f); err != nil {
		return nil, err
	}
	if len(p.List) == perPage {
		p.Next = link("/runs", "site", p.Site, "domain", p.Domain, "channel", p.Channel, "state", p.State, "open", r.get("open"), "after", p.List[perPage-1].ID.String())
	}
	args := []string{"runs"}
	for _, x := range [][2]string{{"--site", p.Site}, {"--domain", p.Domain}, {"--channel", p.Channel}, {"--state", p.State}} {
		if x[1] != "" {
			args = append(args, x[0], x[1])
		}
	}
	return &page{Title: "Runs", Template: "runs", Data: p, Live: f.After.IsZero(), Command: command(args...)}, nil
}

// runPage is one run.
type runPage struct {
	query.RunDetail
	Mark     mark
	Zone     string
	Outcome  string
	Outcomes []outcomeCount
	Files    []record.File
	From     int
	Total    int // files of the chosen outcome that were seen
	More     bool
	Next     string
}

type outcomeCount struct {
	Outcome runs.Outcome
	N       int64
	Link    string
}

// maxListed bounds the files of a run that a page counts.
const maxListed = 200_000

// errEnough ends the reading of a run.
var errEnough = errors.New("enough")

func (c *Console) run(r *request) (*page, error) {
	p := &runPage{Outcome: r.get("outcome")}
	p.From, _ = strconv.Atoi(r.get("from")) // nonsense is the first page
	p.From = max(0, p.From)
	seen := 0
	err := c.b.Records.RunShow(r.Context(), r.PathValue("id"), p.Outcome == string(runs.FileUnchanged), func(d query.RunDetail) error { p.RunDetail = d; return nil }, func(f record.File) error {
		if seen++; seen > maxListed {
			return errEnough
		}
		if p.Outcome != "" && string(f.Outcome) != p.Outcome {
			return nil
		}
		if p.Total++; p.Total > p.From && len(p.Files) < perPage {
			p.Files = append(p.Files, f)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		if errors.Is(err, ledger.ErrNotFound) {
			err = &api.Error{Code: "absent", Message: "there is no run " + r.PathValue("id"), Fix: "the page Runs lists them"}
		}
		return nil, err
	}
	p.More = errors.Is(err, errEnough)
	id := p.ID.String()
	t := &p.Totals
	for _, x := range []outcomeCount{{runs.FileFailed, t.Failed, ""}, {runs.FileLocked, t.Locked, ""}, {runs.FileDiffers, t.Differs, ""}, {runs.FileRepaired, t.Repaired, ""}, {runs.FileAdded, t.Added, ""}, {runs.FileChanged, t.Changed, ""},
		{runs.FileMoved, t.Moved, ""}, {runs.FileDeleted, t.Deleted, ""}, {runs.FileExtra, t.Extra, ""}, {runs.FileUnchanged, t.Unchanged, ""}} {
		if x.N > 0 {
			x.Link = link("/runs/"+id, "outcome", string(x.Outcome))
			p.Outcomes = append(p.Outcomes, x)
		}
	}
	if p.Total > p.From+perPage {
		p.Next = link("/runs/"+id, "outcome", p.Outcome, "from", strconv.Itoa(p.From+perPage))
	}
	p.Mark = runMark(string(p.State))
	if sites, err := c.sites(r); err == nil {
		for _, s := range sites {
			if s.Site == p.Site {
				p.Zone = s.Zone
			}
		}
	}
	return &page{Title: "Run " + id[:8], Template: "run", Data: p, Live: p.Finished.IsZero(), Command: command("run", "show", id[:12])}, nil
}

// livePage lists the transfers under way.
type livePage struct {
	List  []transfer
	Speed float64
	Known bool
}

type transfer struct {
	Site, Domain, Zone, Channel, Run string
	Progress                         *runs.Progress
	Speed                            float64
	Known                            bool
	Percent                          int
	Left                             time.Duration
	Closes                           time.Time // when its window closes
	Late                             bool      // it will not end before that
	Phase                            string
}

// phases are the phases of a run in words.
var phases = map[string]string{"fetch": "fetching content", "plan": "comparing", "check": "reading back", "commit": "putting files in place", "read": "reading files", "stage": "fetching content", "verify": "comparing files"}

func (c *Console) live(r *request) (*page, error) {
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	windows, err := c.b.Forecast.Windows(r.Context(), query.WindowsRequest{})
	if err != nil {
		return nil, err
	}
	plan, err := c.plan(r.Context(), fleet.Scope{})
	if err != nil {
		return nil, err
	}
	closes := map[[2]string]time.Time{}
	for _, w := range windows {
		if !w.Always && !w.Start.After(plan.From) {
			closes[[2]string{w.Site, w.Channel}] = w.End
		}
	}
	p := &livePage{Known: true}
	for i := range sites {
		for k := range sites[i].Channels {
			ch := &sites[i].Channels[k]
			if ch.State != query.Running {
				continue
			}
			x := transfer{Site: sites[i].Site, Domain: sites[i].Domain, Zone: sites[i].Zone, Channel: ch.Channel, Run: ch.Run, Progress: ch.Progress, Phase: "starting", Closes: closes[[2]string{sites[i].Site, ch.Channel}]}
			if ch.Progress != nil {
				x.Percent = percent(ch.Progress.BytesDone, ch.Progress.BytesTotal)
				if x.Phase = phases[ch.Progress.Phase]; x.Phase == "" {
					x.Phase = ch.Progress.Phase
				}
				if x.Speed, x.Known = c.speedOf(ch); x.Known && x.Speed > 0 {
					x.Left = time.Duration(float64(max(0, ch.Progress.BytesTotal-ch.Progress.BytesDone)) / x.Speed * float64(time.Second))
					x.Late = !x.Closes.IsZero() && plan.From.Add(x.Left).After(x.Closes)
				}
			}
			p.Speed += x.Speed
			p.Known = p.Known && x.Known
			p.List = append(p.List, x)
		}
	}
	slices.SortStableFunc(p.List, func(a, b transfer) int {
		late := func(x transfer) int {
			if x.Late {
				return 0
			}
			return 1
		}
		return cmp.Or(late(a)-late(b), cmp.Compare(b.Left, a.Left), a.Percent-b.Percent)
	})
	return &page{Title: "Live", Template: "live", Data: p, Live: true, Every: 5, Command: command("runs", "--open")}, nil
}

// releasesPage shows each channel's newest releases, and the sites that hold them.
type releasesPage struct {
	List []channelView
}

type channelView struct {
	Channel   string
	Newest    trust.ReleaseNumber
	Files     int64
	Bytes     int64
	Published time.Time
	Known     bool // the release's own figures: they are for all sites only
	Held      []heldBy
	Sites     int
}

// heldBy is how many sites hold a release.
type heldBy struct {
	Number trust.ReleaseNumber
	Sites  []string
	Share  int
	Mark   mark
}

func (c *Console) releases(r *request) (*page, error) {
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	byChannel := map[string]map[trust.ReleaseNumber][]string{}
	p := &releasesPage{}
	for _, name := range channelsOf(sites) {
		byChannel[name] = map[trust.ReleaseNumber][]string{}
		p.List = append(p.List, channelView{Channel: name})
	}
	status := &query.Status{}
	if r.who.Scope.All() {
		if status, err = shared(r, &c.memo, "status", func(ctx context.Context) (*query.Status, error) { return c.b.Fleet.Status(ctx) }); err != nil {
			return nil, err
		}
	}
	for i := range p.List {
		v := &p.List[i]
		for _, s := range sites {
			for _, ch := range s.Channels {
				if ch.Channel == v.Channel {
					v.Sites++
					v.Newest = max(v.Newest, ch.Wants)
					byChannel[v.Channel][ch.Holds] = append(byChannel[v.Channel][ch.Holds], s.Site)
				}
			}
		}
		for _, x := range status.Channels {
			if x.Channel == v.Channel {
				v.Files, v.Bytes, v.Published, v.Known = x.Files, x.Bytes, x.Published, true
			}
		}
		for n, list := range byChannel[v.Channel] {
			h := heldBy{n, list, percent(int64(len(list)), int64(v.Sites)), mark{"half", "idle", "older"}}
			switch n {
			case v.Newest:
				h.Mark = mark{"disc", "good", "newest"}
			case 0:
				h.Mark = markOf("never")
			}
			v.Held = append(v.Held, h)
		}
		slices.SortFunc(v.Held, func(a, b heldBy) int { return cmp.Compare(b.Number, a.Number) })
	}
	return &page{Title: "Releases", Template: "releases", Data: p, Live: true, Command: command("status")}, nil
}

// forecastPage is the plan of the coming nights.
type forecastPage struct {
	*query.NightPlan
	Bytes    int64
	Cost     float64
	Tonight  int
	Later    int
	Never    int
	Held     int // by a halt, or until a person acts
	Filter   filter
	Channel  string
	Channels []string
}

func (c *Console) forecast(r *request) (*page, error) {
	p := &forecastPage{Filter: r.filter(), Channel: r.get("channel")}
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	p.Filter.offer(sites)
	p.Channels = channelsOf(sites)
	days, err := strconv.Atoi(cmp.Or(r.get("days"), "1"))
	if err != nil || days < 1 || days > 31 {
		return nil, &api.Error{Code: "usage", Message: "days " + r.get("days") + ": want 1 to 31", Fix: "choose a number of days"}
	}
	scope := p.Filter.scope()
	scope.Channel = p.Channel
	if p.NightPlan, err = c.b.Forecast.Plan(r.Context(), query.PlanRequest{Scope: scope, Days: days}); err != nil {
		return nil, err
	}
	for _, x := range p.Items {
		switch {
		case x.Halted || x.Blocked != "":
			p.Held++
			continue
		case x.Tonight:
			p.Tonight++
		case x.Nights == 0:
			p.Never++
		default:
			p.Later++
		}
		p.Bytes, p.Cost = p.Bytes+x.Bytes, p.Cost+x.Cost
	}
	args := []string{"plan", "--days", strconv.Itoa(days)}
	for _, x := range [][2]string{{"--region", p.Filter.Region}, {"--domain", p.Filter.Domain}, {"--channel", p.Channel}} {
		if x[1] != "" {
			args = append(args, x[0], x[1])
		}
	}
	return &page{Title: "Forecast", Template: "forecast", Data: p, Live: true, Command: command(args...)}, nil
}

// auditPage lists deeds, and for an administrator the API tokens.
type auditPage struct {
	List            []ledger.Deed
	Who, What, Next string
	Tokens          []ledger.APIToken
	ShowTokens      bool // and the sessions
	Sessions        []ledger.Session
	Now             time.Time
}

func (c *Console) audit(r *request) (*page, error) {
	p := &auditPage{Who: r.get("who"), What: r.get("what"), Now: c.b.Now()}
	after, _ := strconv.ParseInt(r.get("after"), 10, 64) // nonsense is the first page
	var err error
	if p.List, err = c.b.Records.Deeds(r.Context(), ledger.DeedFilter{Who: p.Who, What: p.What, NoReads: p.What == "", After: max(0, after), Limit: perPage}); err != nil {
		return nil, err
	}
	if len(p.List) == perPage {
		p.Next = link("/audit", "who", p.Who, "what", p.What, "after", strconv.FormatInt(p.List[perPage-1].ID, 10))
	}
	if p.ShowTokens = r.may(rights.Admin) && r.who.Scope.All(); p.ShowTokens {
		if p.Tokens, err = c.b.Tokens.List(r.Context()); err != nil {
			return nil, err
		}
		if p.Sessions, err = c.b.Console.Sessions(r.Context()); err != nil {
			return nil, err
		}
	}
	args := []string{"audit"}
	if p.Who != "" {
		args = append(args, "--who", p.Who)
	}
	if p.What != "" {
		args = append(args, "--what", p.What)
	}
	return &page{Title: "Audit", Template: "audit", Data: p, Live: after == 0, Command: command(args...)}, nil
}

// postEnd ends a session.
func (c *Console) postEnd(r *request) (*page, error) {
	id := r.get("id")
	if _, err := c.b.Console.EndSessions(r.Context(), id, ""); err != nil {
		return nil, err
	}
	return &page{redirect: "/audit#sessions"}, nil
}
