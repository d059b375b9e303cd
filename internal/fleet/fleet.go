// Package fleet is the model of the fleet: channels, domains, regions and
// sites, with every default resolved. It holds values and their rules; it
// reads no file, no network and no clock. Package config builds a Fleet from
// the configuration file.
package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"nightferry/internal/policy"
)

// LinkPolicy decides how a publish handles links and special files, which a
// release cannot hold.
type LinkPolicy string

const (
	// Refuse publishes nothing and lists them.
	Refuse LinkPolicy = "refuse"
	// Skip omits them and reports each.
	Skip LinkPolicy = "skip"
)

// Fleet is everything that the Core serves. Each list is sorted by Name
// without duplicates; lookups rely on it.
type Fleet struct {
	Channels []Channel
	Domains  []Domain
	Regions  []Region
	Sites    []Site
}

// Channel is one kind of content with its own source and policy.
type Channel struct {
	Name    string
	Source  string   // folder at the Core, absolute, as written in the configuration
	Include []string // patterns as package scan reads them; none: everything
	Exclude []string
	Links   LinkPolicy
	// IgnoreInode takes a source file of unchanged size and modification time for unchanged.
	IgnoreInode bool

	// Guards of a publish.
	MaxDelete       float64 // percent of the previous release's files, above 0 and at most 100
	MaxDeleteFiles  int64   // 0: no limit in files
	AllowUnportable bool    // allows names that Windows cannot store

	// Retention in the store.
	Keep       int           // newest releases, at least 1
	KeepWithin time.Duration // also every release that was the newest within this time; 0: none of these

	LogUnchanged bool   // log a line for each unchanged file too
	MeasureRate  int64  // limit for the Core's own reads of the source, in bytes per second; 0: no limit
	Cadence      string // when the Core publishes, as package window parses it; empty: never automatically
}

// Domain is a security realm.
type Domain struct {
	Name     string
	LogGroup string // the group (on Windows a name or SID) that may read the logs of its sites; empty: only the Core's account
}

// Region is a set of sites that share windows and rates.
type Region struct {
	Name string
}

// Site is one target server.
type Site struct {
	Name   string
	Domain string
	Region string
	Zone   string // IANA name

	Location            *time.Location // of Zone
	Latitude, Longitude *float64       // degrees, north and east positive; both or neither are nil

	Rate       int64       // bytes per second of all channels together; 0: no limit
	Rates      string      // timetable of the rate, as package window parses it; empty: none
	Placements []Placement // sorted by Channel, each channel once
}

// Placement is the target folder of a channel at a site, with its resolved
// policy.
type Placement struct {
	Channel string
	Target  string // folder at the site: absolute POSIX, drive or UNC path, see CheckTarget
	policy.Policy
}

func findByName[T any](list []T, name string, of func(*T) string) *T {
	i, ok := slices.BinarySearchFunc(list, name, func(e T, n string) int { return cmp.Compare(of(&e), n) })
	if !ok {
		return nil
	}
	return &list[i]
}

// Channel returns the channel of that name, or nil.
func (f *Fleet) Channel(name string) *Channel {
	return findByName(f.Channels, name, func(c *Channel) string { return c.Name })
}

// Domain returns the domain of that name, or nil.
func (f *Fleet) Domain(name string) *Domain {
	return findByName(f.Domains, name, func(d *Domain) string { return d.Name })
}

// Region returns the region of that name, or nil.
func (f *Fleet) Region(name string) *Region {
	return findByName(f.Regions, name, func(r *Region) string { return r.Name })
}

// Site returns the site of that name, or nil.
func (f *Fleet) Site(name string) *Site {
	return findByName(f.Sites, name, func(s *Site) string { return s.Name })
}

// Placement returns the channel's placement at the site, or nil. A nil Site
// has none: a reload can remove a site while one of its messages is handled.
func (s *Site) Placement(channel string) *Placement {
	if s == nil {
		return nil
	}
	return findByName(s.Placements, channel, func(p *Placement) string { return p.Channel })
}

// Scope selects sites and channels. Empty fields match all; set fields must
// all match.
type Scope struct {
	Domain, Region, Site, Channel string
}

// String lists the fields that are set, such as "region ap channel package", or returns "all".
func (s Scope) String() string {
	t := ""
	for _, p := range []struct{ k, v string }{{"domain", s.Domain}, {"region", s.Region}, {"site", s.Site}, {"channel", s.Channel}} {
		if p.v != "" {
			t += " " + p.k + " " + p.v
		}
	}
	if t == "" {
		return "all"
	}
	return t[1:]
}

// UnknownError reports a name that the configuration does not contain.
type UnknownError struct {
	What string // site, channel, region or domain
	Name string
	Hint string // the name that was probably meant, or all names
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no %s is named %q: %s", e.What, e.Name, e.Hint)
}

// Select returns the sites of a scope in the fleet's order. With a Channel,
// each site has only the placement of that channel, and sites without one are
// omitted. For an unknown name it returns an error that suggests a known one.
func (f *Fleet) Select(s Scope) ([]Site, error) {
	for _, n := range []struct {
		what, name string
		known      func() []string
	}{
		{"domain", s.Domain, func() []string { return namesOf(f.Domains, func(d Domain) string { return d.Name }) }},
		{"region", s.Region, func() []string { return namesOf(f.Regions, func(r Region) string { return r.Name }) }},
		{"site", s.Site, func() []string { return namesOf(f.Sites, func(s Site) string { return s.Name }) }},
		{"channel", s.Channel, func() []string { return namesOf(f.Channels, func(c Channel) string { return c.Name }) }},
	} {
		if n.name == "" {
			continue
		}
		if known := n.known(); !slices.Contains(known, n.name) {
			return nil, &UnknownError{What: n.what, Name: n.name, Hint: Suggest(n.name, known)}
		}
	}
	var out []Site
	for _, site := range f.Sites {
		if s.Domain != "" && site.Domain != s.Domain || s.Region != "" && site.Region != s.Region || s.Site != "" && site.Name != s.Site {
			continue
		}
		if s.Channel != "" {
			p := site.Placement(s.Channel)
			if p == nil {
				continue
			}
			site.Placements = []Placement{*p}
		}
		out = append(out, site)
	}
	return out, nil
}

func namesOf[T any](list []T, of func(T) string) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = of(e)
	}
	return out
}
