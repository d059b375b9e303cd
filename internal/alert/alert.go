// Package alert decides whom to tell what, and writes it: one mail when an
// incident opens, however many sites share it, one when more sites join, one
// reminder a day, one when it is over, and every morning a report of each
// region.
//
// It is pure. What it knows from one call to the next, including what is
// written and not yet delivered, is a State, which its caller stores whole
// before it acts on it: so a crash can make a mail come twice, under the same
// Message-ID, and cannot lose one.
package alert

import (
	"slices"
	"time"
)

// Hook is the recipient that stands for the webhook.
const Hook = "webhook"

// Rules say who is told what.
type Rules struct {
	To      []string            // addresses that are told everything
	Domains map[string][]string // told what concerns a domain's sites, and no other site
	Regions map[string]Region   // every region of the fleet
	Mail    bool                // there is a mail server
	Webhook bool                // there is a webhook; it is told everything
}

// Region is what a region's people want.
type Region struct {
	To     []string // told what concerns the region's sites, and its report
	Report Daily
}

// Daily is a time of every day. Without a zone it never comes.
type Daily struct {
	Hour, Minute int
	Zone         *time.Location
}

// Incident is a problem that several sites may share, as it is told.
type Incident struct {
	ID       int64     `json:"id"`
	Key      string    `json:"key"`
	Kind     string    `json:"kind"`
	Text     string    `json:"text"`
	Remedy   string    `json:"remedy,omitempty"` // what to do
	Opened   time.Time `json:"opened"`
	Last     time.Time `json:"last"` // last reported
	Count    int64     `json:"count"`
	Resolved time.Time `json:"resolved,omitzero"`
	Acked    bool      `json:"acked,omitempty"` // somebody knows: no reminders
	Members  []Member  `json:"members"`
}

// Member is a site's part in it; the Core itself has no names.
type Member struct {
	Domain string    `json:"domain,omitempty"`
	Region string    `json:"region,omitempty"`
	Site   string    `json:"site,omitempty"`
	Text   string    `json:"text"`
	First  time.Time `json:"first"`
	Left   time.Time `json:"left,omitzero"`
}

// Report is a region's night.
type Report struct {
	Region    string     `json:"region"`
	From      time.Time  `json:"from"`
	Until     time.Time  `json:"until"`
	Sites     []SiteLine `json:"sites"`
	Missed    []Missed   `json:"missed"`
	Forecast  []Coming   `json:"forecast"`
	Incidents int        `json:"incidents"` // open, with a site of the region
}

// SiteLine is what one site did.
type SiteLine struct {
	Domain   string `json:"domain"`
	Site     string `json:"site"`
	Runs     int    `json:"runs"`
	Files    int64  `json:"files"`    // added, changed, moved, repaired or deleted
	Bytes    int64  `json:"bytes"`    // that came over the network
	Channels int    `json:"channels"` // that it should hold
	Verified int    `json:"verified"` // of them, those that it holds, proven
}

// Missed is a run that did not bring what it should.
type Missed struct {
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Channel string    `json:"channel"`
	At      time.Time `json:"at"`
	State   string    `json:"state"`
	Cause   string    `json:"cause,omitempty"`
}

// Coming is what a site will get, as the planner foretells it.
type Coming struct {
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Channel string    `json:"channel"`
	Release uint64    `json:"release"` // 0: not published yet
	Bytes   int64     `json:"bytes"`
	Start   time.Time `json:"start,omitzero"` // zero: not within a day
	End     time.Time `json:"end,omitzero"`   // zero: not within a day
	Nights  int       `json:"nights"`         // that it needs; 0: it never comes to an end
	Halted  bool      `json:"halted,omitempty"`
}

// scope is what one recipient may see.
type scope struct {
	all              bool
	domains, regions []string
}

func (r *Rules) scopeOf(target string) scope {
	s := scope{all: target == Hook || slices.Contains(r.To, target)}
	for name, to := range r.Domains {
		if slices.Contains(to, target) {
			s.domains = append(s.domains, name)
		}
	}
	for name, region := range r.Regions {
		if slices.Contains(region.To, target) {
			s.regions = append(s.regions, name)
		}
	}
	return s
}

func (s scope) sees(domain, region string) bool {
	return s.all || slices.Contains(s.domains, domain) || slices.Contains(s.regions, region)
}

// targets lists every recipient once, in a stable order.
func (r *Rules) targets() []string {
	var all []string
	if r.Mail {
		all = append(all, r.To...)
		for _, to := range r.Domains {
			all = append(all, to...)
		}
		for _, region := range r.Regions {
			all = append(all, region.To...)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if r.Webhook {
		all = append(all, Hook)
	}
	return all
}

// seenBy is the incident as one recipient may see it; false: nothing of it.
func (i *Incident) seenBy(s scope) (Incident, bool) {
	if s.all {
		return *i, true
	}
	out := *i
	out.Members = nil
	for _, m := range i.Members {
		if m.Site != "" && s.sees(m.Domain, m.Region) {
			out.Members = append(out.Members, m)
		}
	}
	if len(out.Members) == 0 {
		return out, false
	}
	out.Text = out.Members[0].Text // the incident's own is of whoever was first
	return out, true
}
