package fleet

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"nightferry/internal/policy"
)

// Violation is one broken rule, and the entry that breaks it. All fields except Why are empty if they do not apply.
type Violation struct {
	Channel, Domain, Region, Site string // the entry: at most one of them, or Site and Channel for a placement
	Field                         string // name, source, target, zone, …
	Why                           string // includes the value and the allowed values
}

func (p *Violation) Error() string {
	where := ""
	for _, n := range []struct{ what, name string }{{"domain", p.Domain}, {"region", p.Region}, {"site", p.Site}, {"channel", p.Channel}} {
		if n.name != "" {
			where += fmt.Sprintf("%s %q: ", n.what, n.name)
		}
	}
	return where + p.Field + ": " + p.Why
}

// Validate returns every broken rule in a stable order, or nil if there is none. It reads no file, so a fleet from any
// source obeys the same rules. It does not check patterns or whether folders exist.
func (f *Fleet) Validate() []*Violation {
	v := validator{f: f}
	checkSorted(&v, "channel", f.Channels, func(c *Channel) string { return c.Name }, func(n string) *Violation { return &Violation{Channel: n} })
	checkSorted(&v, "domain", f.Domains, func(d *Domain) string { return d.Name }, func(n string) *Violation { return &Violation{Domain: n} })
	checkSorted(&v, "region", f.Regions, func(r *Region) string { return r.Name }, func(n string) *Violation { return &Violation{Region: n} })
	checkSorted(&v, "site", f.Sites, func(s *Site) string { return s.Name }, func(n string) *Violation { return &Violation{Site: n} })
	for i := range f.Channels {
		v.checkChannel(&f.Channels[i])
	}
	for i := range f.Sites {
		v.checkSite(&f.Sites[i])
	}
	return v.out
}

type validator struct {
	f   *Fleet
	out []*Violation
}

func (v *validator) addViolation(p Violation, field, format string, args ...any) {
	p.Field, p.Why = field, fmt.Sprintf(format, args...)
	v.out = append(v.out, &p)
}

func checkSorted[T any](v *validator, what string, list []T, name func(*T) string, at func(string) *Violation) {
	check := CheckName
	if what == "domain" {
		check = CheckDomainName
	}
	for i := range list {
		n := name(&list[i])
		if err := check(n); err != nil {
			v.addViolation(*at(n), "name", "%v", err)
		}
		if i > 0 {
			switch last := name(&list[i-1]); {
			case last == n:
				v.addViolation(*at(n), "name", "two %ss have it: give each its own", what)
			case last > n:
				v.addViolation(*at(n), "name", "it stands after %q: sort the list by name", last)
			}
		}
	}
}

func (v *validator) checkChannel(c *Channel) {
	at := Violation{Channel: c.Name}
	if p, err := parsePath(c.Source); err != nil {
		v.addViolation(at, "source", "%v", err)
	} else if len(p.parts) == 0 {
		v.addViolation(at, "source", "folder %q is the root of a volume: name a folder below it", c.Source)
	}
	if c.Links != Refuse && c.Links != Skip {
		v.addViolation(at, "links", "%q: want %s or %s", c.Links, Refuse, Skip)
	}
	if !(c.MaxDelete > 0 && c.MaxDelete <= 100) {
		v.addViolation(at, "max_delete", "%v: want percent above 0 and at most 100", c.MaxDelete)
	}
	if c.MaxDeleteFiles < 0 {
		v.addViolation(at, "max_delete_files", "%d: want a number of files, or 0 for no limit", c.MaxDeleteFiles)
	}
	if c.Keep < 1 {
		v.addViolation(at, "keep", "%d: want at least 1 release", c.Keep)
	}
	if c.KeepWithin < 0 {
		v.addViolation(at, "keep_within", "%v: want no negative time", c.KeepWithin)
	}
}

func (v *validator) checkSite(s *Site) {
	at := Violation{Site: s.Name}
	switch {
	case s.Domain == "":
		v.addViolation(at, "domain", "it is in no domain: %s", Suggest("", namesOf(v.f.Domains, func(d Domain) string { return d.Name })))
	case v.f.Domain(s.Domain) == nil:
		v.addViolation(at, "domain", "no domain is named %q: %s", s.Domain, Suggest(s.Domain, namesOf(v.f.Domains, func(d Domain) string { return d.Name })))
	}
	switch {
	case s.Region == "":
		v.addViolation(at, "region", "it is in no region: %s", Suggest("", namesOf(v.f.Regions, func(r Region) string { return r.Name })))
	case v.f.Region(s.Region) == nil:
		v.addViolation(at, "region", "no region is named %q: %s", s.Region, Suggest(s.Region, namesOf(v.f.Regions, func(r Region) string { return r.Name })))
	}
	if s.Location == nil {
		v.addViolation(at, "zone", "%q: want an IANA time zone such as Europe/Berlin", s.Zone)
	}
	if (s.Latitude == nil) != (s.Longitude == nil) {
		v.addViolation(at, "at", "want both latitude and longitude, or neither")
	}
	if s.Latitude != nil && !(math.Abs(*s.Latitude) <= 90) {
		v.addViolation(at, "at", "latitude %v: want -90 to 90", *s.Latitude)
	}
	if s.Longitude != nil && !(math.Abs(*s.Longitude) <= 180) {
		v.addViolation(at, "at", "longitude %v: want -180 to 180", *s.Longitude)
	}
	v.checkRate(at, s.Rate)
	if len(s.Placements) == 0 {
		v.addViolation(at, "targets", "it holds no channel: give it, its domain or its region a target for one")
	}
	for i := range s.Placements {
		v.checkPlacement(s, i)
	}
}

func (v *validator) checkRate(at Violation, r int64) {
	if r < 0 {
		v.addViolation(at, "rate", "%d: want bytes per second, or 0 for no limit", r)
	}
}

func (v *validator) checkPlacement(s *Site, i int) {
	p := &s.Placements[i]
	at := Violation{Site: s.Name, Channel: p.Channel}
	if v.f.Channel(p.Channel) == nil {
		v.addViolation(at, "targets", "no channel is named %q: %s", p.Channel, Suggest(p.Channel, namesOf(v.f.Channels, func(c Channel) string { return c.Name })))
	}
	if i > 0 && s.Placements[i-1].Channel >= p.Channel {
		v.addViolation(at, "targets", "channel %q stands after %q: sort them by name, each once", p.Channel, s.Placements[i-1].Channel)
	}
	v.checkRate(at, p.Rate)
	if n := len(strings.Join(p.Ignore, "")); n > policy.MaxIgnore {
		v.addViolation(at, "ignore", "patterns of %d bytes: want at most %d together", n, policy.MaxIgnore)
	}
	if err := CheckTarget(p.Target); err != nil {
		v.addViolation(at, "targets", "%v", err)
		return
	}
	for _, q := range s.Placements[:i] {
		if Overlap(p.Target, q.Target) {
			v.addViolation(at, "targets", "folder %q overlaps %q of channel %q: two releases would delete each other's files", p.Target, q.Target, q.Channel)
		}
	}
	// Core and site may be one host. Check both directions: a source below a target would be overwritten by its own
	// release.
	if j := slices.IndexFunc(v.f.Channels, func(c Channel) bool { return Overlap(p.Target, c.Source) }); j >= 0 {
		v.addViolation(at, "targets", "folder %q overlaps %q, the source of channel %q: a site must not write to a source of the Core", p.Target, v.f.Channels[j].Source, v.f.Channels[j].Name)
	}
}
