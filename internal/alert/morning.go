package alert

import (
	"fmt"
	"time"

	"nightferry/internal/record"
	"nightferry/internal/trust"
)

// maxComing is the number of coming releases up to which each is listed. Longer
// lists are grouped by release, and name only the releases that are not done in
// a night.
const maxComing = 12

func reportSection(r *Report) section {
	var verified, channels int
	var files, bytes int64
	s := section{Head: []string{"site", "runs", "files", "fetched", "verified"}}
	for _, l := range r.Sites {
		verified, channels, files, bytes = verified+l.Verified, channels+l.Channels, files+l.Files, bytes+l.Bytes
		s.Rows = append(s.Rows, []string{record.Printable(l.Site), fmt.Sprint(l.Runs), fmt.Sprint(l.Files), formatSize(l.Bytes), fmt.Sprintf("%d of %d", l.Verified, l.Channels)})
	}
	s.Title = fmt.Sprintf("%s: %d of %d verified, %d missed", record.Printable(r.Region), verified, channels, len(r.Missed))
	s.Lines = []string{
		fmt.Sprintf("Region %s, %s, from %s to %s.", record.Printable(r.Region), formatCount(len(r.Sites), "site"), formatStamp(r.From), formatStamp(r.Until)),
		fmt.Sprintf("Moved: %s, %s over the network.", formatCount(int(files), "file"), formatSize(bytes)),
		fmt.Sprintf("Verified: %d of %s hold what they should, proven.", verified, formatCount(channels, "channel")),
		fmt.Sprintf("Missed: %s. Open incidents: %d.", formatCount(len(r.Missed), "run"), r.Incidents),
	}
	switch {
	case r.Incidents > 0:
		s.Todo = "see nightferry incidents; each was mailed separately, with its remedy."
	case len(r.Missed) > 0:
		s.Todo = "nothing, if the cause below passes by itself: each continues in its next window. nightferry run show lists the outcome of each file."
	case verified < channels:
		s.Todo = "nothing yet: channels that are not verified are due in a window to come, see the forecast."
	}
	var missed []string
	for _, m := range r.Missed {
		line := fmt.Sprintf("%s, %s, %s: %s", record.Printable(m.Site), record.Printable(m.Channel), formatStamp(m.At), record.Printable(m.State))
		if m.Cause != "" {
			line += ": " + record.OneLine(m.Cause)
		}
		missed = append(missed, line)
	}
	if len(missed) > 0 {
		s.Lists = append(s.Lists, sublist{"Missed:", firstItems(missed, "runs")})
	}
	if len(r.Forecast) == 0 {
		s.Lists = append(s.Lists, sublist{Title: "Forecast: nothing is due within a day."})
	} else {
		s.Lists = append(s.Lists, sublist{"Forecast of the coming day:", firstItems(forecastLines(r.Forecast), "runs")})
	}
	return s
}

func forecastLines(list []Coming) (out []string) {
	if len(list) <= maxComing {
		for _, c := range list {
			out = append(out, record.Printable(c.Site)+", "+record.Printable(c.Channel)+": "+formatRelease(c.Release)+", "+formatSize(c.Bytes)+": "+formatWhen(c))
		}
		return out
	}
	type key struct {
		channel string
		release trust.ReleaseNumber
	}
	type sum struct {
		key
		sites      int
		bytes      int64
		start, end time.Time
	}
	at := map[key]*sum{}
	var sums []*sum
	var single []string
	for _, c := range list {
		if c.End.IsZero() || c.Halted {
			single = append(single, record.Printable(c.Site)+", "+record.Printable(c.Channel)+": "+formatRelease(c.Release)+", "+formatSize(c.Bytes)+": "+formatWhen(c))
			continue
		}
		k := key{c.Channel, c.Release}
		x := at[k]
		if x == nil {
			x = &sum{key: k, start: c.Start, end: c.End}
			at[k], sums = x, append(sums, x)
		}
		x.sites++
		x.bytes += c.Bytes
		if c.Start.Before(x.start) {
			x.start = c.Start
		}
		if c.End.After(x.end) {
			x.end = c.End
		}
	}
	for _, x := range sums {
		out = append(out, fmt.Sprintf("%s at %s: %s, %s, done within the day: from %s to %s", record.Printable(x.channel), formatCount(x.sites, "site"), formatRelease(x.release), formatSize(x.bytes), formatStamp(x.start), formatStamp(x.end)))
	}
	return append(out, single...)
}

func formatRelease(n trust.ReleaseNumber) string {
	if n == 0 {
		return "the next release"
	}
	return fmt.Sprintf("release %d", n)
}

func formatWhen(c Coming) string {
	switch {
	case c.Halted:
		return "halted"
	case c.Start.IsZero():
		return "does not start within a day"
	case !c.End.IsZero():
		return "from " + formatStamp(c.Start) + " to " + formatStamp(c.End)
	case c.Nights > 0:
		return fmt.Sprintf("from %s, and needs %d nights", formatStamp(c.Start), c.Nights)
	}
	return "from " + formatStamp(c.Start) + ", and has no end in sight"
}

func formatCount(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
