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
}

// findReasons finds what keeps a channel at a site from being current, the most
// urgent first. None: nothing does.
func (v *Service) findReasons(s *fleet.Site, st *SiteStatus, ch *ChannelStatus, f *ledger.Finding) (out []Reason) {
	add := func(what string, since time.Time, cause, remedy string) {
		out = append(out, Reason{s.Domain, s.Name, ch.Channel, what, since, cause, remedy})
	}
	if st.Contested != "" {
		add("contested", time.Time{}, st.Contested, "nightferry site token "+s.Name+", then enroll one of the two again; nightferry site confirm "+s.Name+" if the other is gone for good")
	}
	if st.Enrolled.IsZero() {
		add("not enrolled", time.Time{}, "the site has no identity: it never joined, or it was revoked", "nightferry site token "+s.Name)
	}
	if o := v.OrderFor(s, ch.Channel); o != nil {
		if o.ID.IsZero() {
			add("halted on the site", time.Unix(o.At, 0).UTC(), o.Reason, "nightferry-agent resume, on that server")
		} else {
			add("halted by order "+o.ID.Short(), time.Unix(o.At, 0).UTC(), o.Reason, "nightferry resume "+o.ID.Short())
		}
	}
	if !st.Enrolled.IsZero() && !st.Connected {
		add("no message", st.Seen, "the agent has stopped, or cannot reach the Core", "start the agent on the server; nightferry-agent check shows the addresses it cannot reach")
	}
	if ch.lost != "" {
		add("target lost or refused", ch.lastAt, ch.lost, kinds.Remedy(siteTarget, ch.lost))
	} else if f != nil {
		add("files differ", f.At, f.Cause, fmt.Sprintf("nightferry verify --site %s --channel %s --repair; nightferry run show %s names the files", s.Name, ch.Channel, f.Run.String()[:8]))
	}
	switch ch.State {
	case stateContradicted:
		add("contradicts the source", ch.Verified, "the site attests other content than the Core measured in its source", "nightferry incidents names both; look at that server")
	case unproven:
		if f == nil && ch.lost == "" {
			add("unproven", ch.Since, "no run has proven the whole release since", fmt.Sprintf("nightferry verify --site %s --channel %s", s.Name, ch.Channel))
		}
	case Current, Running:
		return out
	}
	if ch.Holds == ch.Wants || ch.Wants == 0 {
		if ch.Wants == 0 {
			add("no release", time.Time{}, "the channel was never published", "nightferry publish "+ch.Channel)
		}
		return out
	}
	return append(out, v.behindFor(s, st, ch)...)
}

// behindFor says why a channel does not hold its newest release yet.
func (v *Service) behindFor(s *fleet.Site, st *SiteStatus, ch *ChannelStatus) (out []Reason) {
	rel, _ := v.o.Newest.Of(ch.Channel)
	add := func(what string, since time.Time, cause, remedy string) {
		out = append(out, Reason{s.Domain, s.Name, ch.Channel, what, since, cause, remedy})
	}
	if ch.failed {
		add("last run "+ch.LastEnd, ch.lastAt, ch.LastWhy, "nightferry run show "+ch.Run[:min(8, len(ch.Run))])
	}
	if st.Connected && st.Revision < st.Wanted {
		add("order not taken over", rel.Published, fmt.Sprintf("the agent has revision %d, the Core states %d", st.Revision, st.Wanted), "it follows within a minute; if not, see nightferry incidents")
	}
	now := v.o.Wall()
	if opens := v.o.World().Nights.Opens(s.Name, ch.Channel, now); !opens.IsZero() {
		add("window "+opens.UTC().Format("01-02 15:04Z"), rel.Published, "the release waits for the site's window", fmt.Sprintf("nightferry sync --site %s --channel %s --now does not wait", s.Name, ch.Channel))
	} else if rate, until := v.ratesOf(s, wire.Address{Domain: s.Domain, Site: s.Name}, now).Rate(now, s.Location); rate == 0 {
		end := "until it is changed"
		if !until.IsZero() {
			end = "until " + until.UTC().Format("01-02 15:04Z")
		}
		add("rate is 0", rel.Published, "the site's timetable, or an operator's limit, allows nothing "+end, "nightferry limit shows and changes it")
	}
	if w := ch.Waiting; len(out) == 0 && w != nil {
		add("waits", rel.Published, w.String(), fmt.Sprintf("nightferry runs --site %s --channel %s shows the last runs", s.Name, ch.Channel))
	}
	if len(out) == 0 && st.Connected {
		add("due", rel.Published, "the agent may start it now", fmt.Sprintf("nightferry sync --site %s --channel %s --follow", s.Name, ch.Channel))
	}
	return out
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
	case !v.o.World().Nights.Opens(s.Name, ch.Channel, v.o.Wall()).IsZero():
		return stateWaiting
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
	for i := range sites {
		listed[wire.Address{Domain: sites[i].Domain, Site: sites[i].Site}] = true
		seen := map[string]bool{}
		for _, ch := range sites[i].Channels {
			for _, r := range ch.Reasons {
				if ch.State == stateWaiting && scope.Site == "" {
					continue // of a whole fleet only sites that need attention
				}
				if !seen[r.What+r.Cause] || r.Cause == "" {
					out = append(out, r)
				}
				seen[r.What+r.Cause] = true
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
			own := m.Site == "" && scope == (fleet.Scope{}) || m.Site == "" && scope.Site == "" && channel != "" && channel == scope.Channel
			if m.Left.IsZero() && (own || listed[wire.Address{Domain: m.Domain, Site: m.Site}]) {
				out = append(out, Reason{m.Domain, m.Site, channel, "incident " + x.Kind, m.First, m.Text, x.Remedy})
			}
		}
	}
	return out, nil
}
