package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/query"
	"nightferry/internal/rights"
)

// haltPage is the kill switch before the click.
type haltPage struct {
	Choices []haltChoice
	Chosen  *haltChoice // nil: none yet
	Active  []haltOrder
	May     bool
	All     bool // lifted orders are listed, too
	Need    rights.Role
	Sites   []string
	Unread  string // why orders in the store may be missing here
}

// haltChoice is a scope, with the sites and transfers that an order for it stops.
type haltChoice struct {
	Scope, Value     string
	Sites, Connected int
	Moving           int // transfers under way
	Speed            float64
	Known            bool // the speed of each transfer was measured
	Link             string
}

// Name is the scope in words.
func (h haltChoice) Name() string { return strings.TrimSpace(h.Scope + " " + h.Value) }

// haltOrder is one order, its proof, and the transfers that start when it is lifted.
type haltOrder struct {
	core.HaltView
	Name, ID, Short    string
	Rows               []haltRow
	Confirmed, Waiting int
	Slowest            time.Duration // from the order to the last confirmation
	BytesAfter         int64
	Ready, Later       int // transfers that may start at once when it is lifted, and those that wait for a window
	Lifted             bool
}

// haltRow is one site on the proof board.
type haltRow struct {
	core.HaltSite
	Mark  mark
	After time.Duration
	Note  string
}

func (c *Console) haltPage(r *request) (*page, error) {
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	h := &haltPage{May: r.may(rights.Operator), Need: rights.Operator, All: r.get("all") == "true"}
	h.Choices = c.haltChoices(r, sites)
	scope, value := r.get("scope"), r.get("value")
	if name, ok := strings.CutPrefix(scope, "site "); ok {
		scope, value = halt.Site, name
	}
	for i := range h.Choices {
		if x := &h.Choices[i]; x.Scope == scope && x.Value == value && scope != "" {
			h.Chosen = x
		}
	}
	if scope != "" && h.Chosen == nil {
		return nil, &api.Error{Code: "absent", Message: fmt.Sprintf("there is no %s to halt", strings.TrimSpace(scope+" "+value)), Fix: "choose one of the scopes on the page Halt"}
	}
	for _, s := range sites {
		h.Sites = append(h.Sites, s.Site)
	}
	h.Choices = slices.DeleteFunc(slices.Clone(h.Choices), func(x haltChoice) bool { return x.Scope == halt.Site })
	if h.Active, err = c.haltOrders(r, sites, h.All); err != nil {
		return nil, err
	}
	if r.who.Scope.All() {
		if s, err := c.b.Fleet.Status(r.Context()); err == nil {
			h.Unread = s.Unread
		}
	}
	p := &page{Title: "Halt", Template: "halt", Data: h, Live: h.Chosen == nil, Command: command("halt", "status")}
	if h.Chosen != nil {
		p.Command = haltCommand(h.Chosen.Scope, h.Chosen.Value, "REASON")
	}
	return p, nil
}

func haltCommand(scope, value, reason string) string {
	if scope == halt.All {
		return command("halt", "--all", "--reason", reason)
	}
	return command("halt", "--"+scope, value, "--reason", reason)
}

// haltChoices lists all scopes that the principal may halt, the widest first.
func (c *Console) haltChoices(r *request, sites []query.SiteStatus) []haltChoice {
	all := map[[2]string]*haltChoice{}
	f := c.b.Rights.Configured()
	at := func(scope, value string) *haltChoice {
		if !r.who.Scope.CoversHalt(f, scope, value) {
			return &haltChoice{}
		}
		x := all[[2]string{scope, value}]
		if x == nil {
			x = &haltChoice{Scope: scope, Value: value, Known: true, Link: link("/halt", "scope", scope, "value", value)}
			all[[2]string{scope, value}] = x
		}
		return x
	}
	for i := range sites {
		s := &sites[i]
		scopes := []*haltChoice{at(halt.All, ""), at(halt.Region, s.Region), at(halt.Domain, s.Domain), at(halt.Site, s.Site)}
		for _, x := range scopes {
			x.Sites++
			if s.Connected {
				x.Connected++
			}
		}
		for _, ch := range s.Channels {
			own := at(halt.Channel, ch.Channel)
			own.Sites++
			if s.Connected {
				own.Connected++
			}
			if ch.State != query.Running {
				continue
			}
			speed, known := c.speedOf(&ch)
			for _, x := range append(scopes, own) {
				x.Moving++
				x.Speed += speed
				x.Known = x.Known && known
			}
		}
	}
	order := []string{halt.All, halt.Region, halt.Domain, halt.Channel, halt.Site}
	var out []haltChoice
	for _, x := range all {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b haltChoice) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Scope), slices.Index(order, b.Scope)), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// haltOrders are the active orders, with their proof.
func (c *Console) haltOrders(r *request, sites []query.SiteStatus, all bool) (out []haltOrder, err error) {
	list, err := c.b.Halts.List(r.Context(), all)
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		o := haltOrder{HaltView: v, Name: strings.TrimSpace(v.Scope + " " + v.Value), ID: v.Order.String(), Short: v.Order.Short(), Lifted: !v.Resumed.IsZero()}
		if v.Order.IsZero() {
			o.ID, o.Short = "", ""
		}
		under := map[string]bool{}
		for _, s := range v.Sites {
			row := haltRow{HaltSite: s}
			under[s.Site] = true
			switch {
			case !s.MovesUntil.IsZero():
				row.Mark, row.Note = mark{"diamond", "bad", "not proven"}, "an agent that was of domain "+s.FormerDomain+" may still move content"
				o.Waiting++
			case !s.Enrolled:
				row.Mark, row.Note = mark{"square", "none", "not enrolled"}, "no agent of this site can move content"
			case s.Contested != "":
				row.Mark, row.Note = mark{"diamond", "bad", "not proven"}, "two machines use the identity of this site, and either may move content"
				o.Waiting++
			case !s.Stopped.IsZero():
				row.Mark, row.After = mark{"octagon", "good", "stopped"}, max(0, s.Stopped.Sub(v.At))
				o.Confirmed++
				o.Slowest, o.BytesAfter = max(o.Slowest, row.After), o.BytesAfter+s.BytesAfter
			case s.Connected:
				row.Mark = mark{"query", "bad", "has not confirmed"}
				o.Waiting++
			default:
				row.Mark, row.Note = mark{"cross", "warn", "has not confirmed"}, "it is away; it reads the order from the store when it moves content"
				o.Waiting++
			}
			o.Rows = append(o.Rows, row)
		}
		rank := map[string]int{"bad": 0, "warn": 1, "good": 2, "none": 3}
		slices.SortStableFunc(o.Rows, func(a, b haltRow) int { return rank[a.Mark.Tone] - rank[b.Mark.Tone] })
		for i := range sites {
			for _, ch := range sites[i].Channels {
				if !under[sites[i].Site] || v.Scope == halt.Channel && ch.Channel != v.Value || ch.Holds == ch.Wants {
					continue
				}
				if ch.Waiting != nil && ch.Waiting.Why == "window" {
					o.Later++
				} else {
					o.Ready++
				}
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// haltProof is the board of one order.
func (c *Console) haltProof(r *request) (*page, error) {
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	list, err := c.haltOrders(r, sites, true)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == r.PathValue("order") && list[i].ID != "" {
			o := &list[i]
			every := 0
			if o.Waiting > 0 {
				every = 2
			}
			return &page{Title: "Halt of " + o.Name, Template: "proof", Data: proof{o, r.may(rights.Operator)}, Live: true, Every: every, Command: command("halt", "status", "--all")}, nil
		}
	}
	return nil, &api.Error{Code: "absent", Message: fmt.Sprintf("there is no halt order %q", r.PathValue("order")), Fix: "the page Halt lists the orders"}
}

type proof struct {
	Order *haltOrder
	May   bool
}

func (c *Console) postHalt(r *request) (*page, error) {
	q := core.HaltRequest{Scope: r.get("scope"), Value: r.get("value"), Reason: r.get("reason"), Until: c.b.Now().Add(api.KillSwitchTime)}
	if !r.may(rights.Operator) || q.Scope == halt.All && !r.who.Scope.All() { // before the form is judged
		_, err := c.b.Halts.Halt(r.Context(), q)
		return nil, refused(err)
	}
	if q.Reason == "" {
		return nil, &api.Error{Code: "usage", Message: "a halt needs a reason", Fix: "go back and write one: all who ask why see it"}
	}
	if want := strings.TrimSpace(q.Scope + " " + q.Value); q.Scope == halt.All && r.get("typed") != want {
		return nil, &api.Error{Code: "usage", Message: fmt.Sprintf("nothing was halted: to halt all sites, type %q", want), Fix: "go back and type it"}
	}
	done, err := c.b.Halts.Halt(r.Context(), q)
	if err != nil {
		return nil, err
	}
	if len(done.Orders) != 1 {
		return &page{redirect: "/halt"}, nil
	}
	return &page{redirect: "/halt/" + done.Orders[0].String()}, nil
}

func (c *Console) postResume(r *request) (*page, error) {
	order := r.get("order")
	if order == "" && r.may(rights.Operator) { // the backend refuses the others
		return nil, &api.Error{Code: "usage", Message: "no order is named", Fix: "choose one on the page Halt"}
	}
	if _, err := c.b.Halts.Resume(r.Context(), order, "", ""); err != nil {
		return nil, err
	}
	return &page{redirect: "/halt/" + order}, nil
}
