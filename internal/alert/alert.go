// Package alert decides who receives which alerts, and writes the messages. An incident produces one mail when it
// opens, however many sites share it, one when more sites join, one reminder a day, and one when it ends. Every
// morning, each region gets a report.
//
// The package is pure. Its memory between calls is a State, which includes messages that are written but not delivered.
// The caller stores the whole State before it acts on it. After a crash, a mail may therefore arrive twice, under the
// same Message-ID, but none is lost.
package alert

import (
	"slices"
	"time"

	"nightferry/internal/trust"
)

// Hook is the recipient name of the webhook.
const Hook = "webhook"

// Rules define the recipients of alerts.
type Rules struct {
	To      []string            // addresses that receive everything
	Domains map[string][]string // by domain: addresses that receive notices about its sites only
	Regions map[string]Region   // every region of the fleet
	Mail    bool                // there is a mail server
	Webhook bool                // there is a webhook; it receives everything
}

// Region holds the alert settings of a region.
type Region struct {
	To     []string // addresses that receive notices about the region's sites, and its report
	Report Daily
}

// Daily is a time of day. Without a zone it never occurs.
type Daily struct {
	Hour, Minute int
	Zone         *time.Location
}

// Incident is an incident as recipients see it; several sites may share it.
type Incident struct {
	ID       int64     `json:"id"`
	Key      string    `json:"incident_key"`
	Kind     string    `json:"kind"`
	Text     string    `json:"text"`
	Remedy   string    `json:"remedy,omitempty"` // what to do
	Opened   time.Time `json:"opened"`
	Last     time.Time `json:"last"` // last reported
	Count    int64     `json:"count"`
	Resolved time.Time `json:"resolved,omitzero"`
	Acked    bool      `json:"acked,omitempty"` // acknowledged: no reminders
	Silent   time.Time `json:"silent,omitzero"` // until then nothing is sent of it, except its end if its begin was told
	Members  []Member  `json:"members"`
}

// Member is a site's part in it; the Core itself has empty names.
type Member struct {
	Domain string    `json:"domain,omitempty"`
	Region string    `json:"region,omitempty"`
	Site   string    `json:"site,omitempty"`
	Text   string    `json:"text"`
	First  time.Time `json:"first"`
	Left   time.Time `json:"left,omitzero"`
}

// Report is the report about one night in a region.
type Report struct {
	Region    string     `json:"region"`
	From      time.Time  `json:"from"`
	Until     time.Time  `json:"until"`
	Sites     []SiteLine `json:"sites"`
	Missed    []Missed   `json:"missed"`
	Forecast  []Coming   `json:"forecast"`
	Incidents int        `json:"incidents"` // open, with a site of the region
}

// SiteLine is the night's result of one site.
type SiteLine struct {
	Domain   string `json:"domain"`
	Site     string `json:"site"`
	Runs     int    `json:"runs"`
	Files    int64  `json:"files"`    // added, changed, moved, repaired or deleted
	Bytes    int64  `json:"bytes"`    // received over the network
	Channels int    `json:"channels"` // number of channels that it should hold
	Verified int    `json:"verified"` // number of those that it holds, proven
}

// Missed is a run that did not reach its release.
type Missed struct {
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Channel string    `json:"channel"`
	At      time.Time `json:"at"`
	State   string    `json:"state"`
	Cause   string    `json:"cause,omitempty"`
}

// Coming is a release that a site will get, as the planner forecasts it.
type Coming struct {
	Domain  string              `json:"domain"`
	Site    string              `json:"site"`
	Channel string              `json:"channel"`
	Release trust.ReleaseNumber `json:"release"` // 0: not published yet
	Bytes   int64               `json:"bytes"`
	Start   time.Time           `json:"start,omitzero"` // zero: not within a day
	End     time.Time           `json:"end,omitzero"`   // zero: not within a day
	Nights  int                 `json:"nights"`         // nights needed; 0: it never completes
	Halted  bool                `json:"halted,omitempty"`
}

// scope is the set of sites that one recipient may see.
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

func (s scope) seesSite(domain, region string) bool {
	return s.all || slices.Contains(s.domains, domain) || slices.Contains(s.regions, region)
}

// listTargets lists every recipient once, in a stable order.
func (r *Rules) listTargets() []string {
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

// seenBy returns the incident as one recipient may see it; false if the
// recipient may see nothing of it.
func (i *Incident) seenBy(s scope) (Incident, bool) {
	if s.all {
		return *i, true
	}
	out := *i
	out.Members = nil
	for _, m := range i.Members {
		if m.Site != "" && s.seesSite(m.Domain, m.Region) {
			out.Members = append(out.Members, m)
		}
	}
	if len(out.Members) == 0 {
		return out, false
	}
	out.Text = out.Members[0].Text // the incident's own text may be from a site that the recipient may not see
	return out, true
}
