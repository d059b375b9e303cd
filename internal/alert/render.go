package alert

import (
	"embed"
	"fmt"
	"html/template"
	"strings"
	"time"

	"nightferry/internal/record"
)

//go:embed letter.html
var files embed.FS

// maxMembers bounds how many sites of an incident a letter names.
const maxMembers = 200

// section is one notice as both parts of a mail show it.
type section struct {
	Title string
	Lines []string   // of an incident
	Head  []string   // of a report's table
	Rows  [][]string // of it
	After []string
}

// Render writes a letter. What sites said is shown with control characters as
// escapes.
func Render(l *Letter) (subject, text, html string, err error) {
	var list []section
	for i := range l.Notices {
		list = append(list, sectionOf(&l.Notices[i]))
	}
	intro := ""
	if l.Late {
		intro = "These notices could not be delivered when they were due. What is over by now is told once."
	}
	if l.Dropped > 0 {
		intro += fmt.Sprintf(" %d older notices were too many to keep: see nightferry incidents --all.", l.Dropped)
	}
	subject = "[nightferry] " + list[0].Title
	if len(list) > 1 {
		subject = fmt.Sprintf("[nightferry] %d notices: %s", len(list), summary(l.Notices))
	}
	t, err := template.ParseFS(files, "letter.html")
	if err != nil {
		return "", "", "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{"Intro": intro, "Sections": list}); err != nil {
		return "", "", "", fmt.Errorf("write a letter: %w", err)
	}
	return subject, plain(intro, list), b.String(), nil
}

func summary(list []Notice) string {
	var opened, over, reports int
	for i := range list {
		switch list[i].Kind {
		case Resolved:
			over++
		case Morning:
			reports++
		default:
			opened++
		}
	}
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{opened, "open"}, {over, "over"}, {reports, "reports"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func sectionOf(n *Notice) section {
	switch {
	case n.Incident != nil:
		return incidentSection(n.Kind, n.Incident)
	case n.Report != nil:
		return reportSection(n.Report)
	}
	return section{Title: "a test of the alerts", Lines: []string{"This is a test. Who reads it will also be told of real incidents."}}
}

func incidentSection(kind string, i *Incident) section {
	word := map[string]string{Opened: "new", Grown: "more sites", Reminder: "still open", Resolved: "over"}[kind]
	here := i.Members
	if kind != Resolved { // who has left is told by the end
		here = nil
		for _, m := range i.Members {
			if m.Left.IsZero() {
				here = append(here, m)
			}
		}
	}
	s := section{Title: fmt.Sprintf("%s: %s%s", word, record.Printable(i.Kind), where(here))}
	s.Lines = append(s.Lines, record.Printable(i.Text))
	since := "since " + stamp(i.Opened)
	if kind == Resolved {
		since = "from " + stamp(i.Opened) + " to " + stamp(i.Resolved)
	}
	s.Lines = append(s.Lines, since+"; "+fmt.Sprintf("incident %d, see nightferry incidents, and docs/operations.md for %s", i.ID, record.Printable(i.Kind)))
	for k, m := range here {
		if k == maxMembers {
			s.Lines = append(s.Lines, fmt.Sprintf("and %d more sites", len(here)-k))
			break
		}
		if m.Site == "" || len(here) == 1 && m.Text == i.Text {
			continue
		}
		s.Lines = append(s.Lines, fmt.Sprintf("- %s (%s), since %s: %s", record.Printable(m.Site), record.Printable(m.Domain), stamp(m.First), record.Printable(m.Text)))
	}
	return s
}

// where names up to three sites.
func where(list []Member) string {
	var names []string
	for _, m := range list {
		if m.Site != "" {
			names = append(names, record.Printable(m.Site))
		}
	}
	switch n := len(names); {
	case n == 0:
		return ""
	case n <= 3:
		return " at " + strings.Join(names, ", ")
	default:
		return fmt.Sprintf(" at %d sites", n)
	}
}

func reportSection(r *Report) section {
	var verified, channels int
	var files, bytes int64
	s := section{Head: []string{"site", "runs", "files moved", "bytes fetched", "channels verified"}}
	for _, l := range r.Sites {
		verified, channels, files, bytes = verified+l.Verified, channels+l.Channels, files+l.Files, bytes+l.Bytes
		s.Rows = append(s.Rows, []string{record.Printable(l.Site), fmt.Sprint(l.Runs), fmt.Sprint(l.Files), size(l.Bytes), fmt.Sprintf("%d of %d", l.Verified, l.Channels)})
	}
	s.Title = fmt.Sprintf("%s: %d of %d verified, %d missed", record.Printable(r.Region), verified, channels, len(r.Missed))
	s.Lines = []string{
		fmt.Sprintf("Region %s, %d sites, from %s to %s.", record.Printable(r.Region), len(r.Sites), stamp(r.From), stamp(r.Until)),
		fmt.Sprintf("Moved: %d files, %s over the network. Verified: %d of %d channels. Open incidents: %d.", files, size(bytes), verified, channels, r.Incidents),
	}
	if len(r.Missed) > 0 {
		s.After = append(s.After, "Missed:")
	}
	for _, m := range r.Missed {
		line := fmt.Sprintf("- %s, %s, %s: %s", record.Printable(m.Site), record.Printable(m.Channel), stamp(m.At), record.Printable(m.State))
		if m.Cause != "" {
			line += ": " + record.Printable(m.Cause)
		}
		s.After = append(s.After, line)
	}
	if len(r.Forecast) == 0 {
		s.After = append(s.After, "Forecast: nothing is due within a day.")
	} else {
		s.After = append(s.After, "Forecast:")
	}
	for _, c := range r.Forecast {
		s.After = append(s.After, "- "+forecast(c))
	}
	return s
}

func forecast(c Coming) string {
	release := "the next release"
	if c.Release > 0 {
		release = fmt.Sprintf("release %d", c.Release)
	}
	when := "does not start within a day"
	switch {
	case c.Halted:
		when = "halted"
	case c.Start.IsZero():
	case !c.End.IsZero():
		when = "from " + stamp(c.Start) + " to " + stamp(c.End)
	case c.Nights > 0:
		when = fmt.Sprintf("from %s, and needs %d nights", stamp(c.Start), c.Nights)
	default:
		when = "from " + stamp(c.Start) + ", and has no end in sight"
	}
	return fmt.Sprintf("%s, %s: %s, %s: %s", record.Printable(c.Site), record.Printable(c.Channel), release, size(c.Bytes), when)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// size writes bytes with a unit of a thousand.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	v, u := float64(n), 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[u])
}

func plain(intro string, list []section) string {
	var b strings.Builder
	if intro != "" {
		b.WriteString(strings.TrimSpace(intro) + "\n\n")
	}
	for i, s := range list {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(s.Title + "\n" + strings.Repeat("=", min(len(s.Title), 78)) + "\n")
		for _, l := range s.Lines {
			b.WriteString(l + "\n")
		}
		if len(s.Rows) > 0 {
			fmt.Fprintf(&b, "\n%-24s %6s %12s %14s %18s\n", s.Head[0], s.Head[1], s.Head[2], s.Head[3], s.Head[4])
			for _, r := range s.Rows {
				fmt.Fprintf(&b, "%-24s %6s %12s %14s %18s\n", r[0], r[1], r[2], r[3], r[4])
			}
		}
		if len(s.After) > 0 {
			b.WriteString("\n" + strings.Join(s.After, "\n") + "\n")
		}
	}
	return b.String()
}
