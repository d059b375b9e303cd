package console

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/rights"
)

const (
	maxLogs    = 200_000  // files that are looked through for a page
	maxLogRead = 64 << 20 // bytes at the end of a log that a page searches
	maxLogLine = 4 << 20  // bytes
)

// logsPage lists log files, the newest first.
type logsPage struct {
	List                  []record.Log
	Total, Days           int
	Domain, Site, Channel string
	Domains, Channels     []string // that the principal may read
	More                  bool     // some files were not looked at
	Next                  string
	Zones                 map[string]string
}

func (c *Console) logs(r *request) (*page, error) {
	p := &logsPage{Domain: r.get("domain"), Site: r.get("site"), Channel: r.get("channel"), Zones: map[string]string{}}
	var err error
	if p.Days, err = strconv.Atoi(cmp.Or(r.get("days"), "7")); err != nil || p.Days < 1 || p.Days > 400 {
		return nil, &api.Error{Code: "usage", Message: "days " + r.get("days") + ": want 1 to 400", Fix: "choose a number of days"}
	}
	p.offer(c.b.Rights.Configured(), r.who.Scope)
	filter := record.Filter{Domain: p.Domain, Site: p.Site, Channel: p.Channel, Since: c.b.Now().AddDate(0, 0, -p.Days)}
	err = c.b.Records.Logs(r.Context(), filter, func(l record.Log) error {
		if len(p.List) == maxLogs {
			p.More = true
			return errEnough
		}
		p.List = append(p.List, l)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	slices.SortStableFunc(p.List, func(a, b record.Log) int { return b.Date.Compare(a.Date) })
	p.Total = len(p.List)
	from, _ := strconv.Atoi(r.get("from")) // nonsense is the first page
	from = min(max(0, from), p.Total)
	p.List = p.List[from:min(from+perPage, p.Total)]
	if from+perPage < p.Total {
		p.Next = link("/logs", "domain", p.Domain, "site", p.Site, "channel", p.Channel, "days", strconv.Itoa(p.Days), "from", strconv.Itoa(from+perPage))
	}
	args := []string{"logs", "--since", strconv.Itoa(p.Days) + "d"}
	for _, x := range [][2]string{{"--domain", p.Domain}, {"--site", p.Site}, {"--channel", p.Channel}} {
		if x[1] != "" {
			args = append(args, x[0], x[1])
		}
	}
	return &page{Title: "Logs", Template: "logs", Data: p, Live: from == 0, Command: command(args...)}, nil
}

// offer lists the domains and channels of the sites in a principal's scope.
func (p *logsPage) offer(f *fleet.Fleet, scope rights.Scope) {
	for i := range f.Sites {
		s := &f.Sites[i]
		if scope.CoversSite(f, s.Domain, s.Name) {
			p.Domains = append(p.Domains, s.Domain)
			p.Zones[s.Name] = s.Zone
		}
	}
	slices.Sort(p.Domains)
	p.Domains = slices.Compact(p.Domains)
	for _, ch := range f.Channels {
		p.Channels = append(p.Channels, ch.Name)
	}
}

// logPage shows the end of a log.
type logPage struct {
	*ledger.Run
	Mark     mark
	Zone     string
	Size     int64
	Text     string // that a line must hold
	Outcome  string
	Outcomes []string // of the lines that were read
	Lines    []logLine
	Found    int
	Whole    bool // all of the log was read
	File     string
}

// logLine is a line of a log: of a file, or the first or the last one.
type logLine struct {
	Path    string    `json:"path"`
	Outcome string    `json:"outcome"`
	Size    int64     `json:"size"`
	Fetched int64     `json:"fetched"`
	Cause   string    `json:"cause"`
	At      time.Time `json:"at"`
}

// openLog opens the log of the run that the URL names.
func openLog(files api.LogFiles, r *request) (*ledger.Run, io.ReadSeekCloser, error) {
	run, f, err := files.OpenLog(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		err = &api.Error{Code: "absent", Message: "there is no run " + r.PathValue("id"), Fix: "the page Logs lists the log files"}
	case errors.Is(err, fs.ErrNotExist):
		err = &api.Error{Code: "absent", Message: err.Error(), Fix: "a log file is written when its run has ended, and removed after the retention"}
	}
	return run, f, err
}

func (c *Console) log(r *request) (_ *page, err error) {
	run, f, err := openLog(c.b.LogFiles, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := &logPage{Run: run, Mark: runMark(string(run.State)), Text: r.get("text"), Outcome: r.get("outcome"), File: "/logs/" + run.ID.String() + "/file"}
	if s := c.b.Rights.Configured().Site(run.Site); s != nil {
		p.Zone = s.Zone
	}
	if err := p.read(f); err != nil {
		return nil, fmt.Errorf("read the log of run %s: %w", run.ID, err)
	}
	return &page{Title: "Log " + run.ID.String()[:8], Template: "log", Data: p, Command: command("run", "show", run.ID.String()[:12])}, nil
}

// read reads the end of a log, and keeps the last lines that match.
func (p *logPage) read(f io.ReadSeeker) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	p.Size, p.Whole = size, size <= maxLogRead
	if _, err := f.Seek(max(0, size-maxLogRead), io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 64<<10), maxLogLine)
	seen, text := map[string]bool{}, bytes.ToLower([]byte(p.Text))
	for first := !p.Whole; in.Scan(); first = false {
		var l logLine
		if first || json.Unmarshal(in.Bytes(), &l) != nil || l.Outcome == "" {
			continue // the rest of a line, or a line that is of no file
		}
		seen[l.Outcome] = true
		if p.Outcome != "" && l.Outcome != p.Outcome || len(text) > 0 && !bytes.Contains(bytes.ToLower(in.Bytes()), text) {
			continue
		}
		p.Found++
		if len(p.Lines) == 2*perPage {
			p.Lines = append(p.Lines[:0], p.Lines[perPage:]...)
		}
		p.Lines = append(p.Lines, l)
	}
	p.Lines = p.Lines[max(0, len(p.Lines)-perPage):]
	for o := range seen {
		p.Outcomes = append(p.Outcomes, o)
	}
	slices.Sort(p.Outcomes)
	return in.Err()
}

// logFile sends a log as it is.
func (c *Console) logFile(r *request) (*page, error) {
	run, f, err := openLog(c.b.LogFiles, r)
	if err != nil {
		return nil, err
	}
	name := "run-" + run.ID.String() + ".jsonl"
	return &page{raw: func(w http.ResponseWriter, r *request) { // another request may share this page, but not the file
		_, f, err := openLog(c.b.LogFiles, r)
		if err != nil {
			http.Error(w, "the log cannot be read now", http.StatusNotFound)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		_, _ = io.Copy(w, f) // a client that has gone
	}}, f.Close()
}
