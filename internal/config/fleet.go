package config

import (
	"fmt"
	"strings"
	"time"

	"nightferry/internal/collect"
	"nightferry/internal/fleet"
	"nightferry/internal/policy"
	"nightferry/internal/scan"
)

// defaultMaxDelete is also the default of a push without a Core.
const defaultMaxDelete = 25

// Defaults of the scrub: every byte at a site is read once a week, slowly
// enough not to disturb users of the files.
const (
	defaultScrub     = 7 * 24 * time.Hour
	defaultScrubRate = 50_000_000 // bytes per second
)

func (b *builder) fleet() *fleet.Fleet {
	b.badTargets = map[string]bool{}
	f := &fleet.Fleet{}
	for _, name := range names(b.f.Channels) {
		f.Channels = append(f.Channels, b.channel(name))
	}
	b.level("defaults", &b.f.Defaults)
	for _, name := range names(b.f.Regions) {
		r := b.f.Regions[name]
		b.level("regions."+name, &r.levelFile)
		f.Regions = append(f.Regions, fleet.Region{Name: name})
	}
	for _, name := range names(b.f.Domains) {
		d := b.f.Domains[name]
		b.level("domains."+name, &d.levelFile)
		f.Domains = append(f.Domains, fleet.Domain{Name: name, LogGroup: b.group("domains."+name+".log_readers", d.LogReaders)})
	}
	origin := map[[2]string]string{} // site and channel → the key that set the target
	for _, name := range names(b.f.Sites) {
		f.Sites = append(f.Sites, b.site(name, origin))
	}
	b.cadences(f)
	b.problems(f, origin)
	return f
}

func (b *builder) group(key string, given *string) string {
	if given == nil {
		return ""
	}
	if *given == "" || strings.TrimSpace(*given) != *given || strings.ContainsAny(*given, "\x00\r\n\t:/") {
		b.bad(key, "%s: want the name of a group", quote(*given))
	}
	return *given
}

func (b *builder) channel(name string) fleet.Channel {
	key, c := "channels."+name, b.f.Channels[name]
	out := fleet.Channel{
		Name: name, Include: c.Include, Exclude: c.Exclude,
		Links:     fleet.LinkPolicy(b.choice(key+".links", c.Links, string(fleet.Refuse), string(fleet.Skip))),
		MaxDelete: defaultMaxDelete, Keep: collect.DefaultKeep,
		AllowUnportable: b.choice(key+".unportable_names", c.UnportableNames, "refuse", "allow") == "allow",
		LogUnchanged:    c.LogUnchanged != nil && *c.LogUnchanged,
		IgnoreInode:     c.SourceIgnoreInode != nil && *c.SourceIgnoreInode,
	}
	b.choice(key+".locked", c.Locked, "wait", partial)
	if c.Source != nil {
		out.Source = *c.Source
	}
	if c.MaxDelete != nil {
		if *c.MaxDelete > 0 { // otherwise it was refused before
			out.MaxDelete = float64(*c.MaxDelete)
		}
	}
	if c.MaxDeleteFiles != nil {
		out.MaxDeleteFiles = *c.MaxDeleteFiles
	}
	if c.Keep != nil {
		out.Keep = int(min(*c.Keep, 1<<30))
	}
	if c.Priority != nil && (*c.Priority > maxPriority || *c.Priority < -maxPriority) {
		b.bad(key+".priority", "%d: want %d to %d", *c.Priority, -maxPriority, maxPriority)
	}
	if n := len(strings.Join(c.Ignore, "")); n > policy.MaxIgnore {
		b.bad(key+".ignore", "patterns of %d bytes: want at most %d together", n, policy.MaxIgnore)
		c.Ignore = nil // reported here, and not at each site
		b.f.Channels[name] = c
	}
	if c.MeasureRate != nil {
		out.MeasureRate = int64(*c.MeasureRate)
	}
	if c.KeepWithin != nil {
		out.KeepWithin = time.Duration(*c.KeepWithin)
	}
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"include", c.Include}, {"exclude", c.Exclude}, {"ignore", c.Ignore}} {
		for i, p := range list.patterns {
			if _, err := scan.ParsePatterns(nil, []string{p}); err != nil {
				b.bad(fmt.Sprintf("%s.%s[%d]", key, list.name, i), "%s", strings.TrimPrefix(err.Error(), "exclude "))
			}
		}
	}
	return out
}

// choice returns the given text if it is one of allowed, whose first element
// is the default.
func (b *builder) choice(key string, given *string, allowed ...string) string {
	if given == nil {
		return allowed[0]
	}
	for _, a := range allowed {
		if *given == a {
			return a
		}
	}
	b.bad(key, "%s: %s", quote(*given), fleet.Suggest(*given, allowed))
	return allowed[0]
}

const (
	none    = "none"    // as a target: removes a channel that a wider level gives the site
	partial = "partial" // as locked, beside wait
)

// level checks the keys of one level at that level.
func (b *builder) level(key string, p *levelFile) {
	b.choice(key+".locked", p.Locked, "wait", partial)
	for _, ch := range names(p.Targets) {
		here, t := key+".targets."+ch, p.Targets[ch]
		b.choice(here+".locked", t.Locked, "wait", partial)
		if _, ok := b.f.Channels[ch]; !ok {
			b.fail(b.at["#"+here], here, "no channel is named %s: %s", quote(ch), fleet.Suggest(ch, names(b.f.Channels)))
		}
		if t.Folder == nil || *t.Folder == none {
			continue
		}
		folder, err := expand(*t.Folder, "x", "x", "x", "x")
		if err == nil {
			if err = fleet.CheckTarget(folder); err != nil && folder != *t.Folder {
				err = fmt.Errorf("%s: with names in its placeholders: %w", quote(*t.Folder), err)
			}
		}
		if err != nil {
			b.badTargets[here] = true
			if b.has(here + ".folder") {
				b.bad(here+".folder", "%v", err)
			} else {
				b.bad(here, "%v", err)
			}
		}
	}
}

// expand fills in a target's placeholders.
func expand(text, site, domain, region, channel string) (string, error) {
	out := strings.NewReplacer("{site}", site, "{domain}", domain, "{region}", region, "{channel}", channel).Replace(text)
	if strings.ContainsAny(out, "{}") {
		return "", fmt.Errorf("%s: the placeholders are {site}, {domain}, {region} and {channel}, and there are no other braces", quote(text))
	}
	return out, nil
}

func (b *builder) site(name string, origin map[[2]string]string) fleet.Site {
	key, s := "sites."+name, b.f.Sites[name]
	b.level(key, &s.levelFile)
	out := fleet.Site{Name: name, Location: time.UTC}
	if s.Domain != nil {
		out.Domain = *s.Domain
	}
	if s.Region != nil {
		out.Region = *s.Region
	}
	b.zone(key, s.Zone, &out)
	if b.has(key + ".at") {
		if len(s.At) != 2 {
			b.bad(key+".at", "want [latitude, longitude] in degrees, such as [52.52, 13.40]")
		} else {
			out.Latitude, out.Longitude = &s.At[0], &s.At[1]
		}
	}
	levels := []level{
		{key, s.levelFile},
		{"domains." + out.Domain, b.f.Domains[out.Domain].levelFile},
		{"regions." + out.Region, b.f.Regions[out.Region].levelFile},
		{"defaults", b.f.Defaults},
	}
	for _, l := range levels {
		if l.Rate != nil {
			out.Rate, out.Rates = l.Rate.split()
			break
		}
	}
	for _, ch := range names(b.f.Channels) {
		p, from := b.placement(&out, ch, levels)
		if p != nil {
			out.Placements = append(out.Placements, *p)
			origin[[2]string{name, ch}] = from
		}
	}
	return out
}

func (b *builder) zone(key string, zone *string, out *fleet.Site) {
	if zone == nil {
		b.fail(b.at["#"+key], key, "it has no zone: want an IANA name such as Europe/Berlin")
		return
	}
	out.Zone = *zone
	loc, err := time.LoadLocation(*zone)
	if err != nil || *zone == "" || *zone == "Local" {
		b.bad(key+".zone", "%s: there is no such time zone: want an IANA name such as Europe/Berlin", quote(*zone))
		return
	}
	out.Location = loc
}

// level holds the settings of one level, and its key. The nearest level with
// a setting takes effect.
type level struct {
	key string
	levelFile
}

// placement returns the channel's placement at the site and the key that set
// it, or nil.
func (b *builder) placement(s *fleet.Site, ch string, levels []level) (*fleet.Placement, string) {
	c := b.f.Channels[ch]
	p := &fleet.Placement{Channel: ch, Policy: channelPolicy(&c)}
	var from string
	var folder, locked *string
	var prune, repair, ignoreInode *bool
	var speed *rate
	var when *rule
	for _, l := range levels {
		t := l.Targets[ch]
		if folder == nil && t.Folder != nil {
			folder, from = t.Folder, l.key+".targets."+ch
		}
		speed = first(speed, t.Rate)
		when = first(when, t.Windows, l.Windows)
		locked = first(locked, t.Locked, l.Locked)
		prune = first(prune, t.Prune, l.Prune)
		ignoreInode = first(ignoreInode, t.IgnoreInode, l.IgnoreInode)
		repair = first(repair, t.Repair, l.Repair)
	}
	if folder == nil || *folder == none || b.badTargets[from] {
		return nil, ""
	}
	locked, prune = first(locked, c.Locked), first(prune, c.Prune)
	p.Partial = locked != nil && *locked == partial
	p.Prune = prune != nil && *prune
	ignoreInode = first(ignoreInode, c.IgnoreInode)
	p.IgnoreInode = ignoreInode != nil && *ignoreInode
	repair = first(repair, c.Repair)
	p.ReportOnly = repair != nil && !*repair
	if speed != nil {
		p.Rate = int64(*speed)
	}
	b.windows(s, p, first(when, c.Windows))
	p.Target, _ = expand(*folder, s.Name, s.Domain, s.Region, ch) // checked at its own level
	return p, from
}

// channelPolicy returns the rules that only a channel can set, with their
// defaults.
func channelPolicy(c *channel) policy.Policy {
	p := policy.Policy{Ignore: c.Ignore, Scrub: defaultScrub, ScrubRate: defaultScrubRate}
	if c.Scrub != nil {
		p.Scrub = time.Duration(*c.Scrub)
	}
	if c.ScrubRate != nil {
		p.ScrubRate = int64(*c.ScrubRate)
	}
	if c.Priority != nil {
		p.Priority = int(*c.Priority)
	}
	return p
}

func first[T any](list ...*T) *T {
	for _, p := range list {
		if p != nil {
			return p
		}
	}
	return nil
}

// problems reports the model's errors at their positions in the file.
func (b *builder) problems(f *fleet.Fleet, origin map[[2]string]string) {
	type shared struct{ key, why string }
	told := map[shared]*Error{}
	more := map[*Error]int{}
	for _, p := range f.Validate() {
		if p.Site != "" && p.Channel != "" {
			key := origin[[2]string{p.Site, p.Channel}]
			if strings.HasPrefix(key, "sites.") {
				b.bad(key, "%s", p.Why)
				continue
			}
			// A wrong default is wrong at every site that has it; report it once.
			id := shared{key, strings.ReplaceAll(p.Why, p.Site, "{site}")}
			if e := told[id]; e != nil {
				more[e]++
				continue
			}
			b.bad(key, "at site %s: %s", quote(p.Site), p.Why)
			told[id] = b.errs[len(b.errs)-1]
			continue
		}
		key := ""
		for _, n := range []struct{ list, name string }{{"channels", p.Channel}, {"domains", p.Domain}, {"regions", p.Region}, {"sites", p.Site}} {
			if n.name != "" {
				key = n.list + "." + n.name
			}
		}
		if p.Field == "targets" && len(b.errs) > 0 {
			continue // it holds no channel, perhaps because its target has been refused
		}
		if b.has(key + "." + p.Field) {
			b.bad(key+"."+p.Field, "%s", p.Why)
		} else {
			why := p.Why
			if p.Field != "name" {
				why = p.Field + ": " + why
			}
			b.fail(b.at["#"+key], key, "%s", why)
		}
	}
	for e, n := range more {
		e.Why += fmt.Sprintf(" (and at %d more)", n)
	}
}
