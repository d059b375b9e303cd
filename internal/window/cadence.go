package window

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Cadence decides when the Core publishes a channel. It is immutable. The zero Cadence never publishes.
type Cadence struct {
	cron *cron.SpecSchedule // in UTC, but read as wall-clock time of zone
	zone *time.Location

	before bool // before the first window
	lead   time.Duration
	days   daySet

	text string // canonical
}

// Opening is one site's rule for the channel.
type Opening struct {
	At   Place
	Rule Rule
}

const (
	// DefaultLead is the time from the start of a publish to the first window, if the cadence does not give one.
	DefaultLead = 2 * time.Hour
	maxLead     = 24 * time.Hour
)

const cadenceForm = "want minute, hour, day of month, month, day of week and a zone (30 18 * * mon-fri Europe/Berlin), " +
	"or daily or weekly DAY, a time or nothing, and before first window (daily 2h before first window)"

// ParseCadence reads a cadence:
//
//	30 18 * * mon-fri Europe/Berlin      cron's five fields, and the zone of their clock
//	daily 2h before first window         so that each night of the world finds a new release
//	weekly sun 4h before first window
//	never
func ParseCadence(text string) (Cadence, error) {
	c, err := parseCadence(splitWords(text, 0, blank))
	if err != nil {
		return Cadence{}, fmt.Errorf("cadence %q: %w", text, err)
	}
	return c, nil
}

func parseCadence(list []word) (Cadence, error) {
	if len(list) == 0 {
		return Cadence{}, word{column: 1}.badWord("%s", cadenceForm)
	}
	switch head := strings.ToLower(list[0].text); {
	case head == "never" && len(list) == 1:
		return Cadence{}, nil
	case head == "daily" || head == "weekly":
		return parseBefore(head, list[0], list[1:])
	case len(list) == 6:
		return parseCron(list)
	}
	return Cadence{}, list[0].badWord("%s", cadenceForm)
}

func parseBefore(head string, first word, list []word) (Cadence, error) {
	c := Cadence{before: true, lead: DefaultLead, days: weekdays}
	if head == "weekly" {
		i := -1
		if len(list) > 0 {
			i = dayIndex(strings.ToLower(list[0].text))
		}
		if i < 0 {
			return c, first.badWord("want a day behind it, mon to sun, such as weekly sun before first window")
		}
		c.days = dayBit(i)
		head += " " + weekNames[i]
		list = list[1:]
	}
	if len(list) == 4 {
		lead, err := time.ParseDuration(list[0].text)
		if err != nil || lead < 0 || lead > maxLead || lead%time.Minute != 0 {
			return c, list[0].badWord("want how long before, in whole minutes, such as 90m or 2h, up to %s", formatHours(maxLead))
		}
		c.lead = lead
		list = list[1:]
	}
	for i, want := range []string{"before", "first", "window"} {
		if len(list) != 3 || strings.ToLower(list[i].text) != want {
			return c, first.badWord("%s", cadenceForm)
		}
	}
	c.text = fmt.Sprintf("%s %s before first window", head, formatHours(c.lead))
	return c, nil
}

func parseCron(list []word) (Cadence, error) {
	fields := make([]string, 5)
	for i, w := range list[:5] {
		fields[i] = strings.ToLower(w.text)
	}
	spec := strings.Join(fields, " ")
	parsed, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(spec)
	if err != nil {
		return Cadence{}, fmt.Errorf("%w: %s", err, cadenceForm)
	}
	schedule, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Cadence{}, list[0].badWord("%s", cadenceForm)
	}
	zone, err := time.LoadLocation(list[5].text)
	if err != nil || list[5].text == "Local" {
		return Cadence{}, list[5].badWord("want an IANA zone such as Europe/Berlin, or UTC")
	}
	schedule.Location = time.UTC
	if schedule.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cadence{}, list[2].badWord("no month that is named has such a day")
	}
	return Cadence{cron: schedule, zone: zone, text: spec + " " + zone.String()}, nil
}

// String returns the canonical text, which ParseCadence reads.
func (c Cadence) String() string {
	if c.text == "" {
		return "never"
	}
	return c.text
}

// MarshalText is String.
func (c Cadence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseCadence.
func (c *Cadence) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCadence(string(b))
	return err
}

// NeedsOpenings reports whether Next reads the sites' windows.
func (c Cadence) NeedsOpenings() bool { return c.before }

// Next returns the first time after after at which the channel is published; false if there is none.
//
// A cron time is a time on the zone's wall clock. If the clock skips it, it means the end of the skipped time, and
// several such times count once. If the clock shows it twice, it means the first of the two. So a daily publish runs
// once every day, and an hourly one omits the second of the doubled hours.
//
// "Before first window" uses the sites' own dates. Of all windows that start on a site's Tuesday, the first one
// worldwide determines the single publish for that Tuesday.
func (c Cadence) Next(after time.Time, sites []Opening) (time.Time, bool) {
	switch {
	case c.cron != nil:
		return c.nextCron(after)
	case c.before:
		return c.nextBefore(after, sites)
	}
	return time.Time{}, false
}

func (c Cadence) nextCron(after time.Time) (time.Time, bool) {
	local := after.In(c.zone)
	y, m, d := local.Date()
	hour, minute, second := local.Clock()
	shown := time.Date(y, m, d, hour, minute, second, 0, time.UTC)
	// The clock has already shown or passed its present time and all earlier ones. So only later times can name an
	// instant after after.
	for next := shown; ; {
		next = c.cron.Next(next)
		if next.IsZero() {
			return time.Time{}, false
		}
		if t := wallTime(dateOf(next), next.Hour()*60+next.Minute(), c.zone); t.After(after) {
			return t, true
		}
	}
}

func (c Cadence) nextBefore(after time.Time, sites []Opening) (time.Time, bool) {
	// Dates differ by one around the world, and the lead is a day at most. So start two days ago, and advance by a
	// fortnight.
	const step = 14
	today := dateOf(after.UTC())
	for from := -2; from < horizon; from += step {
		starts := map[Date]time.Time{}
		for _, s := range sites {
			zone := s.At.timeZone()
			begin, end := today.addDays(from), today.addDays(from+step)
			for _, w := range Between(wallTime(begin, 0, zone), wallTime(end, 0, zone), s.At, s.Rule) {
				d := dateOf(w.Start.In(zone))
				if first, ok := starts[d]; !ok || w.Start.Before(first) {
					starts[d] = w.Start
				}
			}
		}
		var best time.Time
		for d, start := range starts {
			t := start.Add(-c.lead)
			if c.days&(1<<d.weekday()) != 0 && t.After(after) && (best.IsZero() || t.Before(best)) {
				best = t
			}
		}
		if !best.IsZero() {
			return best.UTC(), true
		}
	}
	return time.Time{}, false
}
