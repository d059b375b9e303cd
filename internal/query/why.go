package query

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// States of a channel at a site. What does not hold the newest release is
// waiting, due, failing, away or halted, so that each word has one meaning.
const (
	Current      = "current" // it holds the newest release, proven
	stateWaiting = "waiting" // its window is closed
	stateDue     = "due"     // it may start now, and has not
	stateFailing = "failing" // its last run for that release did not end well
	stateAway    = "away"    // the site is not connected
	stateHalted  = "halted"  // a halt order stops it
	Running      = "running"
	stateNever   = "never" // it holds nothing, and no run was reported
	different    = string(runs.Different)
	// contradicted: the site's statement is not what the Core measured in its source.
	stateContradicted = "contradicted"
	// contested: two machines use the site's identity, so that nothing is claimed of it.
	stateContested = "contested"
)

// States lists them, for filters and for the documentation.
func States() []string {
	return []string{Current, Running, stateWaiting, stateDue, stateFailing, stateAway, stateHalted, stateNever, different, unproven, stateContradicted, stateContested}
}

// Problem reports whether somebody should look at a channel in that state.
func Problem(state string) bool {
	return !slices.Contains([]string{Current, Running, stateWaiting, stateDue}, state)
}

// Reason is one answer to why a channel at a site is not as it should be.
type Reason struct {
	Domain  string    `json:"domain,omitempty"`
	Site    string    `json:"site,omitempty"`
	Channel string    `json:"channel,omitempty"` // empty: the whole site, or the Core
	What    string    `json:"what"`              // a few words
	Since   time.Time `json:"since,omitzero"`
	Cause   string    `json:"cause,omitempty"`
	Remedy  string    `json:"remedy,omitempty"`

	told kinds.Kind // of the incident that has the same cause; empty: none
}

// reasons collects those of a channel at a site.
type reasons struct {
	of   Reason // names the channel and the site
	then string // remedy that must come before all others; empty: none
	list []Reason
}

func (r *reasons) add(what string, since time.Time, cause, remedy string, told ...kinds.Kind) {
	x := r.of
	x.What, x.Since, x.Cause, x.Remedy = what, since, cause, kinds.ForSite(remedy, x.Site, x.Channel)
	if r.then != "" {
		x.Remedy = r.then + ": " + x.Remedy
	}
	if len(told) > 0 {
		x.told = told[0]
	}
	r.list = append(r.list, x)
}

// findReasons finds the reasons why a channel at a site is not current, the most
// urgent first. None: nothing does. While the site is not enrolled, or is halted,
// it names nothing that only another order could change.
func (v *Service) findReasons(s *fleet.Site, st *SiteStatus, ch *ChannelStatus, f *ledger.Finding) []Reason {
	out := reasons{of: Reason{Domain: s.Domain, Site: s.Name, Channel: ch.Channel}}
	if st.Contested != "" {
		out.add("contested", time.Time{}, st.Contested, kinds.Remedy(kinds.Cloned, ""), kinds.Cloned)
	}
	order := v.OrderFor(s, ch.Channel)
	if order != nil {
		what, remedy := "halted by order "+order.ID.Short(), "nightferry resume "+order.ID.Short()
		if order.ID.IsZero() {
			what, remedy = "halted on the site", "nightferry-agent resume, on that server"
		}
		out.add(what, time.Unix(order.At, 0).UTC(), "by "+order.By+": "+order.Reason, remedy)
	}
	if st.Enrolled.IsZero() {
		what, cause := "not enrolled", "the site has no identity: it never joined"
		if !st.Revoked.IsZero() {
			what, cause = "revoked", st.RevokedWhy
		}
		out.add(what, st.Revoked, cause, "nightferry site token "+s.Name+", then, on its server: stop the agent, and nightferry-agent enroll --replace --token-file FILE --allow DIR")
	} else if !st.Connected && st.refused != "" {
		out.add("refused", st.refusedAt, st.refused, "nightferry site token "+s.Name+", then, on its server: stop the agent, and nightferry-agent enroll --replace --token-file FILE --allow DIR", kinds.Denied)
	} else if !st.Connected {
		out.add("no message", st.Seen, "the agent has stopped, or cannot reach the Core", "start the agent on the server; nightferry-agent check shows the addresses it cannot reach", kinds.Silent)
	}
	switch {
	case st.Enrolled.IsZero():
		out.then = "once the site is enrolled"
	case order != nil:
		out.then = "once the halt is lifted"
	}
	behind := ch.State != Current && ch.State != Running && ch.Wants != 0 && ch.Holds != ch.Wants && ch.lost == nil && order == nil && !st.Enrolled.IsZero()
	// A finding of the last run names that run's failure. A run that failed after an older finding comes first: it keeps the
	// finding from being repaired.
	named := f != nil && f.Run.String() == ch.Run && (f.State != runs.Incomplete || ch.State == unproven)
	if behind && ch.failed && !named {
		addFailedRun(&out, ch)
	}
	if ch.lost != nil {
		kind := kinds.Target + "-" + kinds.Kind(ch.lost.State)
		out.add("target "+string(ch.lost.State), ch.lost.At, ch.lost.Cause, kinds.Remedy(kind, ch.lost.Cause), kind)
	} else if f != nil && f.State == runs.Unowned {
		out.add("ownership lost", f.At, f.Cause, kinds.Remedy(kinds.RunFails, ch.Channel+": "+f.Cause), kinds.RunFails)
	} else if f != nil && f.State == runs.Incomplete {
		if ch.State == unproven { // else it is the last run for a newer release
			out.add("unproven", f.At, f.Cause, fmt.Sprintf("nightferry run show %s names the files; nightferry verify --site %s --channel %s", f.Run.String()[:8], s.Name, ch.Channel), kinds.RunFails)
		}
	} else if f != nil {
		out.add("files differ", f.At, f.Cause, fmt.Sprintf("nightferry verify --site %s --channel %s --repair; nightferry run show %s names the files", s.Name, ch.Channel, f.Run.String()[:8]), kinds.Discrepancy)
	}
	switch {
	case ch.State == stateContradicted:
		out.add("contradicts the source", ch.Verified, "the site attests other content than the Core measured in its source", "nightferry incidents names both; look at that server", kinds.BadProof)
	case ch.State == unproven && f == nil && ch.lost == nil && !st.Enrolled.IsZero():
		out.add("unproven", ch.Since, "no run has proven the whole release since", fmt.Sprintf("nightferry verify --site %s --channel %s", s.Name, ch.Channel))
	}
	out.then = ""
	switch {
	case !ch.stalled.IsZero():
		out.add("stalled", ch.stalled, "nothing has moved in the run since", kinds.Remedy(kinds.Stalled, ""), kinds.Stalled)
	case ch.State == Current || ch.State == Running:
	case ch.Wants == 0:
		out.add("no release", time.Time{}, "the channel was never published", "nightferry publish "+ch.Channel)
	case behind:
		v.addBehind(&out, s, st, ch)
	}
	return out.list
}

// addFailedRun adds the run of the wanted release that did not end well.
func addFailedRun(out *reasons, ch *ChannelStatus) {
	remedy := kinds.RunRemedy(ch.LastWhy) // the one that the incident of a second failure has
	if remedy == "" {
		remedy = "nightferry run show " + ch.Run[:min(8, len(ch.Run))]
	}
	out.add("last run "+ch.LastEnd, ch.lastAt, ch.LastWhy, remedy, kinds.RunFails)
}

// addBehind adds why a channel does not hold its newest release yet, apart from a run that failed.
func (v *Service) addBehind(out *reasons, s *fleet.Site, st *SiteStatus, ch *ChannelStatus) {
	rel, _ := v.o.Newest.Of(ch.Channel)
	before := len(out.list)
	if st.Connected && st.Revision < st.Wanted {
		out.add("order not taken over", rel.Published, fmt.Sprintf("the agent has revision %d, the Core states %d", st.Revision, st.Wanted), "it follows within a minute; if not, see nightferry incidents")
	}
	if w := ch.Waiting; w != nil && w.Why != waitsAway && w.Why != waitsUnconfirmed && (!ch.failed || w.Why != wire.WhyRetry.String()) {
		out.add(w.label(), rel.Published, w.String(), waitRemedy(w, s.Name, ch.Channel))
	}
	if len(out.list) == before && !ch.failed && st.Connected {
		out.add("due", rel.Published, "the agent may start it now", fmt.Sprintf("nightferry sync --site %s --channel %s --follow", s.Name, ch.Channel))
	}
}

// OrderFor returns the halt order that keeps a site from moving a channel, or
// nil. An order that was given on the site itself has no ID.
func (v *Service) OrderFor(s *fleet.Site, channel string) *halt.Order {
	if o := v.o.Halts().Find(halt.Subject{Site: s.Name, Region: s.Region, Domain: s.Domain, Channel: channel}); o != nil {
		return o
	}
	x, _ := v.o.Sites.Site(wire.Address{Domain: s.Domain, Site: s.Name})
	local := x.Halted
	if local == nil {
		return nil
	}
	return &halt.Order{Scope: halt.Site, Value: s.Name, By: local.By, Reason: local.Reason, At: local.Heard / 1000}
}

// stateOf names the state of a channel that does not hold its newest release.
func (v *Service) stateOf(s *fleet.Site, st *SiteStatus, ch *ChannelStatus) string {
	switch {
	case v.OrderFor(s, ch.Channel) != nil:
		return stateHalted
	case ch.failed:
		return stateFailing
	case !st.Connected:
		return stateAway
	case ch.Waiting != nil:
		return ch.Waiting.state()
	}
	return stateDue
}

// Why answers what is wrong in a scope, since when, why, and what to do: for
// each site and channel, then what open incidents of the scope add. Without a
// site and a channel it also lists the incidents of the Core itself.
func (v *Service) Why(ctx context.Context, scope fleet.Scope) ([]Reason, error) {
	sites, err := v.Sites(ctx, scope)
	if err != nil {
		return nil, err
	}
	var out []Reason
	listed := map[wire.Address]bool{}
	told := map[Row]map[kinds.Kind]int{} // the entries of out that have an incident's cause
	for i := range sites {
		a := wire.Address{Domain: sites[i].Domain, Site: sites[i].Site}
		listed[a] = true
		seen := map[string]int{}
		for _, ch := range sites[i].Channels {
			for _, r := range ch.Reasons {
				if ch.State == stateWaiting && scope.Site == "" {
					continue // of a whole fleet only sites that need attention
				}
				n, same := seen[r.What+r.Cause]
				if !same || r.Cause == "" {
					n = len(out)
					seen[r.What+r.Cause] = n
					out = append(out, r)
				}
				for _, row := range []Row{{a, ch.Channel}, {a, ""}} {
					if told[row] == nil {
						told[row] = map[kinds.Kind]int{}
					}
					told[row][r.told] = n
				}
			}
		}
	}
	incidents, err := v.Incidents(ctx, false)
	if err != nil {
		return nil, err
	}
	for _, x := range incidents {
		_, channel, _ := strings.Cut(x.Key, "/")
		if v.o.World().Fleet.Channel(channel) == nil {
			channel = "" // it is about something else
		}
		if scope.Channel != "" && channel != "" && channel != scope.Channel {
			continue
		}
		for _, m := range x.Members {
			a := wire.Address{Domain: m.Domain, Site: m.Site}
			own := m.Site == "" && scope == (fleet.Scope{}) || m.Site == "" && scope.Site == "" && channel != "" && channel == scope.Channel
			if !m.Left.IsZero() || !own && !listed[a] {
				continue
			}
			n, same := told[Row{a, channel}][kinds.Kind(x.Kind)]
			switch {
			case !same:
				out = append(out, Reason{Domain: m.Domain, Site: m.Site, Channel: channel, What: "incident " + x.Kind, Since: m.First, Cause: m.Text, Remedy: kinds.ForSite(x.Remedy, m.Site, channel)})
			case x.Kind == string(kinds.RunFails): // it names the files and their remedy
				if out[n].Cause == "" || !strings.Contains(m.Text, out[n].Cause) {
					out[n].Cause = m.Text
				}
				out[n].Remedy = kinds.ForSite(kinds.Remedy(kinds.RunFails, m.Text), m.Site, channel)
			}
		}
	}
	return out, nil
}
