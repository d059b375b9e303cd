package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/clock"
	"nightferry/internal/nights"
)

func newPlan(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	var at string
	var days int
	cmd := e.command(verb{
		use:   "plan [flags]",
		short: "Forecast when each site moves which release",
		long: "Lists for each site and channel that is behind, and for each release that a cadence will bring, when it starts, when it has arrived, how many nights that takes and its cost, from the rates that were measured, the windows, the timetables and the prices of the configuration. The sum leaves out content that a halt order, or the reason in START, holds back. " +
			"Times are those of each site's own clock; an end of +1 05:00 is five in the morning of the next day. SIZE is content that the site lacks, before compression: the difference of the two manifests. For a release that is not published yet (next) it is an estimate from past runs, marked with ~. So is the time at a site that was never measured, for which 1 MB/s is assumed.",
		example: "nightferry plan\nnightferry plan --region ap --days 7\nnightferry plan --at 2026-12-24T18:00:00Z --json",
		run: func(ctx context.Context, _ []string) error {
			var from time.Time
			if at != "" {
				var err error
				if from, err = parseMoment(at); err != nil {
					return usage("plan", "--at: %w", err)
				}
			}
			if days < 1 || days > 366 {
				return usage("plan", "--days %d: want 1 to 366", days)
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			p, err := a.Plan(ctx, api.PlanQuery{Scope: api.Scope(s.Scope), At: from, Days: days})
			if err != nil {
				return err
			}
			fleetViews{e}.showPlan(&p)
			return nil
		},
	})
	f.add(cmd)
	s.add(cmd, true)
	cmd.Flags().StringVar(&at, "at", "", "as seen from `TIME`, such as 2026-01-31T18:00:00Z or 2026-01-31; by default now")
	cmd.Flags().IntVar(&days, "days", 1, "look `N` days ahead, 1 to 366")
	return cmd
}

// parseMoment reads a time to come.
func parseMoment(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want 2026-01-31T18:00:00Z, or 2026-01-31 for its midnight in UTC", text)
}

func (g fleetViews) showPlan(p *api.Plan) {
	t := table{head: []string{"SITE", "CHANNEL", "REL", "START", "END", "MOVES", "NIGHTS", "SIZE"}, right: map[int]bool{2: true, 4: true, 5: true, 6: true, 7: true, 8: true}, cut: []int{0, 1}}
	priced := slices.ContainsFunc(p.Items, func(x api.PlanItem) bool { return x.Cost > 0 })
	if priced {
		t.head = append(t.head, "COST")
	}
	var bytes, halted, blocked int64
	var cost float64
	about := ""
	for _, x := range p.Items {
		g.e.event("plan", x)
		switch {
		case x.Halted:
			halted += x.Bytes
		case x.Blocked != "":
			blocked += x.Bytes
		default:
			bytes, cost = bytes+x.Bytes, cost+x.Cost
			if x.Estimated {
				about = "about "
			}
		}
		release := "next"
		if x.Release > 0 {
			release = number(x.Release)
		}
		start, end := wallTimes(x.Start, x.End, x.Zone)
		nights := strconv.Itoa(x.Nights)
		if x.Nights == 0 {
			nights = "never"
			if x.Start.IsZero() {
				nights = "-" // it may well begin after these days
			}
		}
		if x.Halted {
			start, end, nights = "halted", "-", "-"
		} else if x.Blocked != "" {
			start, end, nights = x.Blocked, "-", "-"
		}
		moves, amount := took(time.Duration(x.Active)), size(x.Bytes)
		if x.Assumed {
			moves = "~" + moves
		}
		if x.Halted || x.Blocked != "" {
			moves = "-"
		}
		if x.Estimated {
			amount = "~" + amount
		}
		row := []string{x.Site, x.Channel, release, start, end, moves, nights, amount}
		if priced {
			row = append(row, fmt.Sprintf("%.2f", x.Cost))
		}
		t.add(row...)
	}
	g.e.show(&t, "nothing is due, and no cadence brings anything in these days")
	if len(p.Items) > 0 {
		g.e.summary("%s%s to move, %.2f %s, from %s for %s", about, size(bytes), cost, shown(p.Currency), minute(p.From), count(int64(p.Days), "day"))
	}
	if halted > 0 {
		g.e.summary("%s moves only when its halt is lifted: nightferry halt status lists the halt orders", size(halted))
	}
	if blocked > 0 {
		g.e.summary("%s waits for a person: nightferry why names the cause and the remedy", size(blocked))
	}
}

// wallTimes are a begin and an end by a site's own clock. The end has the number
// of days before it, where it is of a later one.
func wallTimes(from, to time.Time, zone string) (start, end string) {
	start, end = "-", "-"
	if loc, err := time.LoadLocation(zone); err == nil {
		from, to = in(from, loc), in(to, loc)
	}
	if !from.IsZero() {
		start = from.Format("01-02 15:04 MST")
	}
	if !to.IsZero() {
		end = to.Format("15:04")
		y, m, d := from.Date()
		y2, m2, d2 := to.Date()
		if n := time.Date(y2, m2, d2, 0, 0, 0, 0, time.UTC).Sub(time.Date(y, m, d, 0, 0, 0, 0, time.UTC)) / (24 * time.Hour); n > 0 {
			end = fmt.Sprintf("+%d %s", n, end)
		}
	}
	return start, end
}

// in is a time in a zone; the zero time stays it.
func in(t time.Time, zone *time.Location) time.Time {
	if t.IsZero() {
		return t
	}
	return t.In(zone)
}

func newLimit(e *env) *cobra.Command {
	var f coreFlags
	var s siteFlags
	var all, off bool
	var life string
	cmd := e.command(verb{
		use:   "limit [flags] [RATE]",
		short: "Bound how fast sites fetch, from now on",
		long: "Uses RATE instead of the configured rate for these sites: a rate such as 20Mbit, 0 to stop, unlimited, or a timetable by each site's clock such as '06:00-20:00 2Mbit; else unlimited'. " +
			"Runs that are under way follow at once; a site that is away follows when it comes back. --off lets the configuration count again, and --for does so by itself after a time, also while the Core is away.",
		example:   "nightferry limit --region ap 5Mbit --for 2h\nnightferry limit --site osaka '06:00-20:00 0; else 20Mbit'\nnightferry limit --all --off",
		max:       1,
		interrupt: limitUnknown,
		run: func(ctx context.Context, args []string) error {
			if all == (s.Site != "" || s.Region != "" || s.Domain != "") {
				return usage("limit", "name --site, --region or --domain, or --all")
			}
			r := api.LimitRequest{Scope: api.Scope(s.Scope), All: all}
			switch {
			case off == (len(args) == 1) || off && life != "":
				return usage("limit", "want a RATE, or --off alone")
			case !off:
				r.Rate = args[0]
				if r.Rate == "" {
					return usage("limit", "want a RATE, such as 20Mbit, or --off alone")
				}
				if _, err := nights.ParseLimit(r.Rate); err != nil {
					return usage("limit", "%q: %w", args[0], err)
				}
			}
			if life != "" {
				d, err := time.ParseDuration(life)
				if r.For = clock.Seconds(d); err != nil || d <= 0 {
					return usage("limit", "--for %q: want a time such as 90m or 8h", life)
				}
			}
			return fleetViews{e}.limit(ctx, &f, r)
		},
	})
	f.add(cmd)
	s.add(cmd, false)
	cmd.Flags().BoolVar(&all, "all", false, "every site")
	cmd.Flags().BoolVar(&off, "off", false, "let the configuration's rate count again")
	cmd.Flags().StringVar(&life, "for", "", "only for `LONG`, such as 90m or 8h")
	return cmd
}

func (g fleetViews) limit(ctx context.Context, f *coreFlags, r api.LimitRequest) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	list, err := a.Limit(ctx, r)
	if err != nil {
		return err
	}
	t := table{head: []string{"SITE", "RATE", "UNTIL", "NOW"}, cut: []int{0, 1}}
	for _, x := range list {
		g.e.event("limit", x)
		now := "told"
		if !x.Connected {
			now = "when it comes back"
		}
		t.add(x.Site, shownLimit(x.Rate), minute(x.Until), now)
	}
	g.e.show(&t, "there is no such site")
	return nil
}

// shownLimit is a timetable with rates that a person can read: what comes from
// the configuration has them in bytes.
func shownLimit(table string) string {
	table = exactRate.ReplaceAllStringFunc(table, func(rate string) string {
		n, err := strconv.ParseInt(strings.TrimSuffix(rate, "B"), 10, 64)
		switch {
		case err != nil, n == 0:
			return rate
		case n%125_000 == 0:
			return strconv.FormatInt(n/125_000, 10) + "Mbit"
		case n%125 == 0:
			return strconv.FormatInt(n/125, 10) + "kbit"
		case n%1024 == 0:
			return strconv.FormatInt(n/1024, 10) + "KiB"
		}
		return rate
	})
	return strings.TrimPrefix(table, "else ")
}

// exactRate is a rate as timetables have them, in bytes.
var exactRate = regexp.MustCompile(`\b[0-9]+B\b`)
