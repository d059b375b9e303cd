package alert

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// sample returns messages as recipients get them.
func sample() map[string]Notice {
	seventy := Incident{ID: 7, Key: "silent", Kind: "silent", Text: "site apac/s00 was not heard for 5m3s: is the server up, does the agent run, does its network reach the Core?",
		Remedy: "see whether the server is up, the agent runs, and its network reaches the Core", Opened: dawn, Last: dawn, Count: 70}
	for i := range 70 {
		m := member(fmt.Sprintf("s%02d", i), dawn.Add(time.Duration(i)*time.Second))
		m.Text = fmt.Sprintf("site apac/s%02d was not heard for 5m%ds: is the server up, does the agent run, does its network reach the Core?", i, i)
		seventy.Members = append(seventy.Members, m)
	}
	one := Incident{ID: 8, Key: "site-disk", Kind: "site-disk", Text: "channel image: 41 GB are needed, 12 GB are free", Remedy: "free space; the run continues by itself", Opened: dawn, Last: dawn, Count: 1,
		Members: []Member{{Domain: "apac", Region: "ap", Site: "osaka", Text: "channel image: 41 GB are needed, 12 GB are free", First: dawn}}}
	over := one
	over.Resolved = dawn.Add(3 * time.Hour)
	other := one
	other.Members = append([]Member{}, one.Members...)
	other.Members = append(other.Members, Member{Domain: "apac", Region: "ap", Site: "perth", Text: "channel driver: the volume is read-only", First: dawn})
	r := Report{Region: "ap", From: dawn.Add(-24 * time.Hour), Until: dawn, Incidents: 1,
		Missed: []Missed{{Domain: "apac", Site: "perth", Channel: "image", At: dawn, State: "stopped", Cause: "the window has closed: fetched data is kept, and the channel continues in the next, on 2026-03-27 20:00 JST"}}}
	for i := range 20 {
		s := fmt.Sprintf("a-site-with-a-long-name-%02d", i)
		r.Sites = append(r.Sites, SiteLine{Domain: "apac", Site: s, Runs: 3, Files: 123456, Bytes: 123_456_789_012, Channels: 4, Verified: 4})
		for _, ch := range []string{"package", "image"} {
			r.Forecast = append(r.Forecast, Coming{Domain: "apac", Site: s, Channel: ch, Release: 12, Bytes: 2_000_000_000, Start: dawn.Add(time.Hour), End: dawn.Add(2 * time.Hour), Nights: 1})
		}
	}
	r.Forecast = append(r.Forecast, Coming{Site: "perth", Channel: "image", Release: 12, Bytes: 40_000_000_000, Start: dawn.Add(time.Hour), Nights: 3})
	return map[string]Notice{
		"grouped": {Kind: Opened, Incident: &seventy}, "one": {Kind: Opened, Incident: &one}, "two causes": {Kind: Reminder, Incident: &other},
		"over": {Kind: Resolved, Incident: &over}, "report": {Kind: Morning, Report: &r},
	}
}

// TestSeveralLines: a text that lists items is shown as a list, and in one line
// inside another list. Otherwise a text cannot end its own line.
func TestSeveralLines(t *testing.T) {
	list := "2 names no Windows takes: nothing was published\n  \"a:b\": a colon\n  <i>con</i>\x1b[2J: a device\r\n"
	i := Incident{ID: 9, Kind: "publish", Text: "channel package: " + list, Remedy: "mend it", Opened: dawn, Last: dawn, Count: 1, Members: []Member{{Text: "channel package: " + list, First: dawn}}}
	r := Report{Region: "ap", From: dawn, Until: dawn, Missed: []Missed{{Site: "perth", Channel: "image", At: dawn, State: "failed", Cause: list}}}
	shared := i
	shared.Members = []Member{member("osaka", dawn), member("perth", dawn)}
	shared.Members[1].Text = "channel image: " + list
	for _, c := range []struct {
		n          Notice
		text, html string
	}{
		{Notice{Kind: Opened, Incident: &i}, "channel package: 2 names no Windows takes: nothing was published\n- \"a:b\": a colon\n- <i>con</i>\\x1b[2J: a device\n\nWhat to do",
			"<li>&lt;i&gt;con&lt;/i&gt;\\x1b[2J: a device</li>"},
		{Notice{Kind: Opened, Incident: &shared}, "- perth (apac), since 2026-03-27 06:00 UTC: channel image: 2 names no\n  Windows takes: nothing was published; \"a:b\": a colon;", "channel image: 2 names no Windows takes: nothing was published; &#34;a:b&#34;: a colon; &lt;i&gt;con"},
		{Notice{Kind: Morning, Report: &r}, "failed: 2 names no Windows takes:\n  nothing was published; \"a:b\": a colon;", "published; &#34;a:b&#34;: a colon; &lt;i&gt;con"},
	} {
		subject, text, html, err := Render(&Message{To: "ops@x", Notices: []Notice{c.n}})
		if err != nil || !strings.Contains(text, c.text) || !strings.Contains(html, c.html) || strings.Contains(subject+text+html, `\n`) || strings.ContainsAny(subject, "\r\n") {
			t.Errorf("%v\n%s\n%s", err, text, html)
		}
	}
}

// TestReadable: a mail fits 72 columns, states once the incident and the
// remedy, and lists every site in its own line.
func TestReadable(t *testing.T) {
	for name, n := range sample() {
		_, text, html, err := Render(&Message{To: "ops@x", Notices: []Notice{n}})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s\n%s", name, text)
		for line := range strings.Lines(text) {
			if k := utf8.RuneCountInString(strings.TrimRight(line, "\n")); k > width {
				t.Errorf("%s: %d columns: %s", name, k, line)
			}
		}
		if x := n.Incident; x != nil && n.Kind != Resolved {
			flat := strings.Join(strings.Fields(text), " ")
			if !strings.Contains(flat, "What to do: "+x.Remedy) || !strings.Contains(html, x.Remedy) {
				t.Errorf("%s does not say what to do", name)
			}
		} else if x != nil && strings.Contains(text, "What to do") {
			t.Errorf("%s is over, and asks for something", name)
		}
	}
	all := sample()
	render := func(name string) string {
		n := all[name]
		_, text, _, _ := Render(&Message{Notices: []Notice{n}})
		return text
	}
	if text := render("grouped"); strings.Count(text, "was not heard") != 1 || strings.Count(text, "\n- s") != 70 || strings.Count(text, "\n") > 85 {
		t.Errorf("70 sites with one cause read\n%s", text)
	}
	if text := render("two causes"); !strings.Contains(text, "- perth (apac), since 2026-03-27 06:00 UTC: channel driver:") {
		t.Errorf("another cause is not told:\n%s", text)
	}
	report := render("report")
	for _, want := range []string{"image at 20 sites: release 12, 40 GB, done within the day", "- perth, image: release 12, 40 GB: from 2026-03-27 07:00 UTC, and", "80 of 80 channels"} {
		if !strings.Contains(strings.ReplaceAll(report, "\n  ", " "), want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
}
