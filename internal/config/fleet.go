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

func (b *builder) buildFleet() *fleet.Fleet {
	b.badTargets = map[string]bool{}
	f := &fleet.Fleet{}
	for _, name := range sortedKeys(b.f.Channels) {
		f.Channels = append(f.Channels, b.buildChannel(name))
	}
	b.checkLevel("defaults", &b.f.Defaults)
	for _, name := range sortedKeys(b.f.Regions) {
		r := b.f.Regions[name]
		b.checkLevel("regions."+name, &r.levelFile)
		f.Regions = append(f.Regions, fleet.Region{Name: name})
	}
	for _, name := range sortedKeys(b.f.Domains) {
		d := b.f.Domains[name]
		b.checkLevel("domains."+name, &d.levelFile)
		f.Domains = append(f.Domains, fleet.Domain{Name: name, LogGroup: b.checkGroup("domains."+name+".log_readers", d.LogReaders)})
	}
	origin := map[[2]string]string{} // site and channel → the key that set the target
	for _, name := range sortedKeys(b.f.Sites) {
		f.Sites = append(f.Sites, b.buildSite(name, origin))
	}
	b.setCadences(f)
	b.reportProblems(f, origin)
	return f
}

func (b *builder) checkGroup(key string, given *string) string {
	if given == nil {
		return ""
	}
	if *given == "" || strings.TrimSpace(*given) != *given || strings.ContainsAny(*given, "\x00\r\n\t:/") {
		b.reportBad(key, "%s: want the name of a group", quoteShort(*given))
	}
	return *given
}

func (b *builder) buildChannel(name string) fleet.Channel {
	key, c := "channels."+name, b.f.Channels[name]
	out := fleet.Channel{
		Name: name, Include: c.Include, Exclude: c.Exclude,
		Links:     fleet.LinkPolicy(b.checkChoice(key+".links", c.Links, string(fleet.Refuse), string(fleet.Skip))),
		MaxDelete: defaultMaxDelete, Keep: collect.DefaultKeep,
		AllowUnportable: b.checkChoice(key+".unportable_names", c.UnportableNames, "refuse", "allow") == "allow",
		LogUnchanged:    c.LogUnchanged != nil && *c.LogUnchanged,
		IgnoreInode:     c.SourceIgnoreInode != nil && *c.SourceIgnoreInode,
	}
	b.checkChoice(key+".locked", c.Locked, "wait", partial)
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
		b.reportBad(key+".priority", "%d: want %d to %d", *c.Priority, -maxPriority, maxPriority)
	}
	if n := len(strings.Join(c.Ignore, "")); n > policy.MaxIgnore {
		b.reportBad(key+".ignore", "patterns of %d bytes: want at most %d together", n, policy.MaxIgnore)
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
				b.reportBad(fmt.Sprintf("%s.%s[%d]", key, list.name, i), "%s", strings.TrimPrefix(err.Error(), "exclude "))
			}
		}
	}
	return out
}

// checkChoice returns the given text if it is one of allowed, whose first element
// is the default.
func (b *builder) checkChoice(key string, given *string, allowed ...string) string {
	if given == nil {
		return allowed[0]
	}
	for _, a := range allowed {
		if *given == a {
			return a
		}
	}
	b.reportBad(key, "%s: %s", quoteShort(*given), fleet.Suggest(*given, allowed))
	return allowed[0]
}

const (
	none    = "none"    // as a target: removes a channel that a wider level gives the site
	partial = "partial" // as locked, beside wait
)

// checkLevel checks the keys of one level at that level.
func (b *builder) checkLevel(key string, p *levelFile) {
	b.checkChoice(key+".locked", p.Locked, "wait", partial)
	for _, ch := range sortedKeys(p.Targets) {
		here, t := key+".targets."+ch, p.Targets[ch]
		b.checkChoice(here+".locked", t.Locked, "wait", partial)
		if _, ok := b.f.Channels[ch]; !ok {
			b.addError(b.at["#"+here], here, "no channel is named %s: %s", quoteShort(ch), fleet.Suggest(ch, sortedKeys(b.f.Channels)))
		}
		if t.Folder == nil || *t.Folder == none {
			continue
		}
		folder, err := expandPlaceholders(*t.Folder, "x", "x", "x", "x")
		if err == nil {
			if err = fleet.CheckTarget(folder); err != nil && folder != *t.Folder {
				err = fmt.Errorf("%s: with names in its placeholders: %w", quoteShort(*t.Folder), err)
			}
		}
		if err != nil {
			b.badTargets[here] = true
			if b.hasKey(here + ".folder") {
				b.reportBad(here+".folder", "%v", err)
			} else {
				b.reportBad(here, "%v", err)
			}
		}
	}
}

// expandPlaceholders fills in a target's placeholders.
func expandPlaceholders(text, site, domain, region, channel string) (string, error) {
	out := strings.NewReplacer("{site}", site, "{domain}", domain, "{region}", region, "{channel}", channel).Replace(text)
	if strings.ContainsAny(out, "{}") {
		return "", fmt.Errorf("%s: the placeholders are {site}, {domain}, {region} and {channel}, and there are no other braces", quoteShort(text))
	}
	return out, nil
}

func (b *builder) buildSite(name string, origin map[[2]string]string) fleet.Site {
	key, s := "sites."+name, b.f.Sites[name]
	b.checkLevel(key, &s.levelFile)
	out := fleet.Site{Name: name, Location: time.UTC}
	if s.Domain != nil {
		out.Domain = *s.Domain
	}
	if s.Region != nil {
		out.Region = *s.Region
	}
	b.buildZone(key, s.Zone, &out)
	if b.hasKey(key + ".at") {
		if len(s.At) != 2 {
			b.reportBad(key+".at", "want [latitude, longitude] in degrees, such as [52.52, 13.40]")
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
			out.Rate, out.Rates = l.Rate.splitRate()
			break
		}
	}
	for _, ch := range sortedKeys(b.f.Channels) {
		p, from := b.buildPlacement(&out, ch, levels)
		if p != nil {
			out.Placements = append(out.Placements, *p)
			origin[[2]string{name, ch}] = from
		}
	}
	return out
}

func (b *builder) buildZone(key string, zone *string, out *fleet.Site) {
	if zone == nil {
		b.addError(b.at["#"+key], key, "it has no zone: want an IANA name such as Europe/Berlin")
		return
	}
	out.Zone = *zone
	loc, err := time.LoadLocation(*zone)
	if err != nil || *zone == "" || *zone == "Local" {
		b.reportBad(key+".zone", "%s: there is no such time zone: want an IANA name such as Europe/Berlin", quoteShort(*zone))
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

// buildPlacement returns the channel's placement at the site and the key that set
// it, or nil.
func (b *builder) buildPlacement(s *fleet.Site, ch string, levels []level) (*fleet.Placement, string) {
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
		speed = firstSet(speed, t.Rate)
		when = firstSet(when, t.Windows, l.Windows)
		locked = firstSet(locked, t.Locked, l.Locked)
		prune = firstSet(prune, t.Prune, l.Prune)
		ignoreInode = firstSet(ignoreInode, t.IgnoreInode, l.IgnoreInode)
		repair = firstSet(repair, t.Repair, l.Repair)
	}
	if folder == nil || *folder == none || b.badTargets[from] {
		return nil, ""
	}
	locked, prune = firstSet(locked, c.Locked), firstSet(prune, c.Prune)
	p.Partial = locked != nil && *locked == partial
	p.Prune = prune != nil && *prune
	ignoreInode = firstSet(ignoreInode, c.IgnoreInode)
	p.IgnoreInode = ignoreInode != nil && *ignoreInode
	repair = firstSet(repair, c.Repair)
	p.ReportOnly = repair != nil && !*repair
	if speed != nil {
		p.Rate = int64(*speed)
	}
	b.setWindows(s, p, firstSet(when, c.Windows))
	p.Target, _ = expandPlaceholders(*folder, s.Name, s.Domain, s.Region, ch) // checked at its own level
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

func firstSet[T any](list ...*T) *T {
	for _, p := range list {
		if p != nil {
			return p
		}
	}
	return nil
}

// reportProblems reports the model's errors at their positions in the file.
func (b *builder) reportProblems(f *fleet.Fleet, origin map[[2]string]string) {
	type shared struct{ key, why string }
	told := map[shared]*Error{}
	more := map[*Error]int{}
	for _, p := range f.Validate() {
		if p.Site != "" && p.Channel != "" {
			key := origin[[2]string{p.Site, p.Channel}]
			if strings.HasPrefix(key, "sites.") {
				b.reportBad(key, "%s", p.Why)
				continue
			}
			// A wrong default is wrong at every site that has it; report it once.
			id := shared{key, strings.ReplaceAll(p.Why, p.Site, "{site}")}
			if e := told[id]; e != nil {
				more[e]++
				continue
			}
			b.reportBad(key, "at site %s: %s", quoteShort(p.Site), p.Why)
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
		if b.hasKey(key + "." + p.Field) {
			b.reportBad(key+"."+p.Field, "%s", p.Why)
		} else {
			why := p.Why
			if p.Field != "name" {
				why = p.Field + ": " + why
			}
			b.addError(b.at["#"+key], key, "%s", why)
		}
	}
	for e, n := range more {
		e.Why += fmt.Sprintf(" (and at %d more)", n)
	}
}
