package alert

import (
	"embed"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nightferry/internal/record"
)

//go:embed message.html
var files embed.FS

const (
	// maxMembers bounds how many sites of an incident, and lines of a list, a
	// message names.
	maxMembers = 200
	// width is the width of the text part in characters. Quoted lines still fit a narrow window.
	width = 72
)

// section is one notice as both parts of a mail show it.
type section struct {
	Title string   // also the subject of a mail with one notice
	Lines []string // what the notice is about
	Items []string // the list below Lines
	Todo  string   // what to do next; empty: nothing
	Facts []string // since when, and where to look
	Head  []string // the header of a report's table
	Rows  [][]string
	Lists []sublist
}

// sublist is a titled list.
type sublist struct {
	Title string
	Items []string // empty: there is only the title
}

// Render writes a message. It escapes control characters in texts from sites.
func Render(l *Message) (subject, text, html string, err error) {
	var list []section
	for i := range l.Notices {
		list = append(list, sectionOf(&l.Notices[i]))
	}
	var intro []string
	if l.Late {
		intro = append(intro, "These notices could not be delivered when they were due. Incidents that were resolved since are listed once.")
	}
	if l.Dropped > 0 {
		intro = append(intro, fmt.Sprintf("%d older notices were too many to keep: see nightferry incidents --all.", l.Dropped))
	}
	subject = "[nightferry] " + list[0].Title
	if len(list) > 1 {
		subject = fmt.Sprintf("[nightferry] %d notices: %s", len(list), subjectSummary(l.Notices))
	}
	t, err := template.ParseFS(files, "message.html")
	if err != nil {
		return "", "", "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{"Intro": strings.Join(intro, " "), "Sections": list}); err != nil {
		return "", "", "", fmt.Errorf("write a message: %w", err)
	}
	return subject, plainText(strings.Join(intro, " "), list), b.String(), nil
}

func subjectSummary(list []Notice) string {
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
	return section{Title: "a test of the alerts", Lines: []string{"This is a test. Its recipients also receive the mails about real incidents."}}
}

func incidentSection(kind string, i *Incident) section {
	word := map[string]string{Opened: "new", Grown: "more sites", Reminder: "still open", Resolved: "over"}[kind]
	here := i.Members
	if kind != Resolved { // only the final notice names sites that have left
		here = nil
		for _, m := range i.Members {
			if m.Left.IsZero() {
				here = append(here, m)
			}
		}
	}
	s := section{Title: fmt.Sprintf("%s: %s%s", word, record.Printable(i.Kind), formatSites(here))}
	if lines := record.Lines(i.Text); len(lines) > 0 {
		s.Lines, s.Items = lines[:1], firstItems(lines[1:], "lines")
	}
	since := "Since " + formatStamp(i.Opened) + "."
	switch {
	case kind == Resolved:
		since = "From " + formatStamp(i.Opened) + " to " + formatStamp(i.Resolved) + ". Nothing is left to do."
	case i.Remedy != "":
		s.Todo = record.Printable(i.Remedy)
	}
	s.Facts = []string{since, fmt.Sprintf("Incident %d: nightferry incidents; docs/operations.md describes %s.", i.ID, record.Printable(i.Kind))}
	var items []string
	for _, m := range here {
		if m.Site == "" || len(here) == 1 && m.Text == i.Text {
			continue
		}
		item := fmt.Sprintf("%s (%s), since %s", record.Printable(m.Site), record.Printable(m.Domain), formatStamp(m.First))
		if commonShape(m.Text, m.Site) != commonShape(i.Text, here[0].Site) {
			item += ": " + record.OneLine(m.Text)
		}
		items = append(items, item)
	}
	if len(items) > 0 {
		title := "At one site:"
		if len(items) > 1 {
			title = fmt.Sprintf("At %d sites:", len(items))
		}
		s.Lists = []sublist{{title, firstItems(items, "sites")}}
	}
	return s
}

// commonShape returns the common part of texts about several sites: texts with the
// same cause differ by the site's name and by numbers.
func commonShape(text, site string) string {
	if site != "" {
		text = strings.ReplaceAll(text, site, "")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
}

func firstItems(items []string, what string) []string {
	if n := len(items) - maxMembers; n > 0 {
		items = append(items[:maxMembers:maxMembers], fmt.Sprintf("and %d more %s", n, what))
	}
	return items
}

// formatSites names up to three sites.
func formatSites(list []Member) string {
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

func formatStamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// formatSize formats a number of bytes with a decimal unit.
func formatSize(n int64) string {
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

// plainText returns the text part.
func plainText(intro string, list []section) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if intro != "" {
		line("%s\n", wrapText(intro, ""))
	}
	for i, s := range list {
		if i > 0 {
			line("")
		}
		line("%s\n%s", wrapText(s.Title, ""), strings.Repeat("=", min(utf8.RuneCountInString(s.Title), width)))
		for _, l := range s.Lines {
			line("%s", wrapText(l, ""))
		}
		for _, item := range s.Items {
			line("%s", wrapText("- "+item, "  "))
		}
		if s.Todo != "" {
			line("\n%s", wrapText("What to do: "+s.Todo, "  "))
		}
		if len(s.Facts) > 0 {
			line("")
		}
		for _, l := range s.Facts {
			line("%s", wrapText(l, ""))
		}
		if len(s.Rows) > 0 {
			line("")
			for _, r := range append([][]string{s.Head}, s.Rows...) {
				line("%-24s %5s %10s %12s %13s", r[0], r[1], r[2], r[3], r[4])
			}
		}
		for _, l := range s.Lists {
			line("\n%s", wrapText(l.Title, ""))
			for _, item := range l.Items {
				line("%s", wrapText("- "+item, "  "))
			}
		}
	}
	return b.String()
}

// wrapText breaks a text into lines between words; those after the first begin with
// indent.
func wrapText(s, indent string) string {
	var b strings.Builder
	col := 0
	for _, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case col == 0:
		case col+1+n > width:
			b.WriteString("\n" + indent)
			col = len(indent)
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	return b.String()
}
