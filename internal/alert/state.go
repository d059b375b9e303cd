package alert

import (
	"fmt"
	"slices"
	"time"

	"nightferry/internal/clock"
)

// Kinds of notices.
const (
	Opened   = "opened"
	Grown    = "grown"    // more sites have joined
	Reminder = "reminder" // it is still open
	Resolved = "resolved"
	Morning  = "report"
	Test     = "test"
)

// Delays and bounds.
const (
	settle     = time.Minute    // wait for sites with the same cause, which join one after the other
	growth     = time.Hour      // between mails about more sites
	remind     = 24 * time.Hour // between reminders
	late       = 12 * time.Hour // how late a report may be sent if the Core was down when it was due
	firstRetry = time.Minute
	lastRetry  = 30 * time.Minute
	maxQueue   = 2000             // notices; the oldest are dropped, and counted
	maxSingle  = 5                // notices at once for one recipient; more come as one message
	maxHourly  = 12               // messages within an hour to one mail recipient; further notices are collected
	collected  = 15 * time.Minute // between messages beyond maxHourly
)

// State records which notices were sent and which are still to be delivered.
// The zero State has sent nothing. The caller stores its JSON form.
type State struct {
	Begun   bool                   `json:"begun"`
	Mark    int64                  `json:"mark"`           // ended incidents up to this id need no notice
	Over    []int64                `json:"over,omitempty"` // ended incidents beyond it that need none either
	Since   time.Time              `json:"since,omitzero"` // incidents that ended before it need none either
	Told    map[int64]*Told        `json:"told"`
	Queue   []*Notice              `json:"queue"`
	Reports map[string]string      `json:"reports"`        // by region, the day for which the last one was due
	Failing map[string]*Fault      `json:"failing"`        // by recipient
	Sent    map[string][]time.Time `json:"sent,omitempty"` // by mail recipient, the messages of the last hour
	Dropped int64                  `json:"dropped"`        // notices, since the last delivery
}

// Told is the last notice about an open incident.
type Told struct {
	Incident Incident  `json:"incident"` // as it was last
	At       time.Time `json:"at"`       // of the last notice to all recipients
	Grown    time.Time `json:"grown,omitzero"`
}

// Fault is a recipient that could not be reached.
type Fault struct {
	Times int       `json:"times"`
	Since time.Time `json:"since"`
	Next  time.Time `json:"next"`
	Why   string    `json:"why"`
}

// Notice is one event to report. A webhook receives its JSON form, without To.
type Notice struct {
	ID       string    `json:"id"` // the same whenever it is delivered
	Kind     string    `json:"kind"`
	At       time.Time `json:"at"`
	Incident *Incident `json:"incident,omitempty"`
	Report   *Report   `json:"report,omitempty"`
	To       []string  `json:"to,omitempty"` // recipients that have not received it yet
}

// isMute reports whether a notice is useless on a channel: a mail about failing
// mail, or a webhook call about a failing webhook.
func isMute(target, kind string) bool {
	return target == Hook && kind == "webhook" || target != Hook && kind == "mail"
}

// Update compares list, the incidents with the newest first, including ended
// ones, with the notices sent so far, and queues new notices. It reports
// whether the state has changed.
func (s *State) Update(now time.Time, r *Rules, list []Incident) bool {
	if s.Told == nil {
		s.Told = map[int64]*Told{}
	}
	changed := s.markReported(list)
	mark := s.Mark
	var unsettled int64
	found := map[int64]bool{}
	for i := len(list) - 1; i >= 0; i-- {
		x := list[i]
		found[x.ID] = true
		told := s.Told[x.ID]
		open := x.Resolved.IsZero()
		switch {
		case x.Silent.After(now) && (told == nil || open): // if it lasts longer, it is told then
		case told == nil && open && now.Sub(x.Opened).Abs() < settle:
			if x.ID > 0 && (unsettled == 0 || x.ID < unsettled) {
				unsettled = x.ID
			}
		case told == nil && open:
			s.queueNotice(now, r, Opened, x)
			changed = true
		case told == nil && x.ID > s.Mark && !x.Resolved.Before(s.Since) && !slices.Contains(s.Over, x.ID):
			s.endIncident(now, r, x)
			changed = true
		case told != nil && !open:
			s.endIncident(now, r, x)
			changed = true
		case told != nil && !x.Acked && clock.Passed(told.At, now, remind):
			s.queueNotice(now, r, Reminder, x)
			changed = true
		case told != nil && clock.Passed(told.At, now, growth) && clock.Passed(told.Grown, now, growth) && hasGrown(&told.Incident, &x, scope{all: true}):
			s.queueNotice(now, r, Grown, x)
			changed = true
		}
		mark = max(mark, x.ID)
	}
	for id, told := range s.Told {
		if !found[id] { // pruned, or the ledger was restored from a backup
			x := told.Incident
			x.Resolved = now
			s.endIncident(now, r, x)
			changed = true
		}
	}
	if unsettled > 0 { // it may end before it was reported
		mark = min(mark, unsettled-1)
	}
	if mark > s.Mark {
		s.Mark, changed = mark, true
	}
	s.Over = slices.DeleteFunc(s.Over, func(id int64) bool { return id <= s.Mark })
	return changed
}

// Lost returns the State that replaces a lost one. All open incidents are
// reported, perhaps again, and those that have ended within a day.
func Lost(now time.Time) State { return State{Begun: true, Since: now.Add(-remind)} }

// markReported treats incidents that ended before the first look as reported.
func (s *State) markReported(list []Incident) bool {
	if s.Begun {
		return false
	}
	s.Begun = true
	for _, x := range list {
		if !x.Resolved.IsZero() {
			s.Over = append(s.Over, x.ID)
		}
	}
	return true
}

func (s *State) queueNotice(now time.Time, r *Rules, kind string, x Incident) {
	n := &Notice{ID: noticeID(kind, x.ID, now), Kind: kind, At: now, Incident: &x}
	n.To = r.recipientsOf(n)
	told := &Told{Incident: x, At: now}
	if kind == Grown {
		before := s.Told[x.ID]
		n.To = slices.DeleteFunc(n.To, func(target string) bool { return !hasGrown(&before.Incident, &x, r.scopeOf(target)) })
		told.At, told.Grown = before.At, now
	}
	s.Told[x.ID] = told
	// The next reminder replaces one that could not be delivered.
	s.Queue = slices.DeleteFunc(s.Queue, func(n *Notice) bool {
		return n.Incident != nil && n.Incident.ID == x.ID && (n.Kind == Reminder || n.Kind == Grown) && kind == Reminder
	})
	s.addNotice(n)
}

func (s *State) endIncident(now time.Time, r *Rules, x Incident) {
	delete(s.Told, x.ID)
	s.Over = append(s.Over, x.ID) // until the mark has passed it
	n := &Notice{ID: noticeID(Resolved, x.ID, now), Kind: Resolved, At: now, Incident: &x}
	n.To = r.recipientsOf(n)
	s.addNotice(n)
}

func noticeID(kind string, id int64, now time.Time) string {
	return fmt.Sprintf("incident-%d-%s-%d", id, kind, now.Unix())
}

// hasGrown reports whether a site that the recipient may see has joined.
func hasGrown(before, now *Incident, sc scope) bool {
	for _, m := range now.Members {
		if m.Left.IsZero() && sc.seesSite(m.Domain, m.Region) && !slices.ContainsFunc(before.Members, func(b Member) bool { return b.Domain == m.Domain && b.Site == m.Site }) {
			return true
		}
	}
	return false
}

// isConcerned reports whether a recipient gets the notice. A recipient whose sites
// have all left an incident gets only its final notice.
func (r *Rules) isConcerned(target string, n *Notice) bool {
	sc := r.scopeOf(target)
	switch {
	case n.Incident != nil:
		seen, ok := n.Incident.seenBy(sc)
		if !sc.all && n.Kind != Resolved {
			ok = slices.ContainsFunc(seen.Members, func(m Member) bool { return m.Left.IsZero() })
		}
		return ok && !isMute(target, n.Incident.Kind)
	case n.Report != nil:
		return sc.all || slices.Contains(sc.regions, n.Report.Region)
	}
	return true
}

// recipientsOf returns all recipients whom a notice concerns.
func (r *Rules) recipientsOf(n *Notice) []string {
	return slices.DeleteFunc(r.listTargets(), func(target string) bool { return !r.isConcerned(target, n) })
}

// addNotice queues a notice if it has a recipient.
func (s *State) addNotice(n *Notice) {
	if len(n.To) == 0 {
		return
	}
	s.Queue = append(s.Queue, n)
	if over := len(s.Queue) - maxQueue; over > 0 {
		s.Queue = slices.Delete(s.Queue, 0, over)
		s.Dropped += int64(over)
	}
}

// ReportsDue lists the regions whose report is due, sorted.
func (s *State) ReportsDue(now time.Time, r *Rules) []string {
	var due []string
	for name, region := range r.Regions {
		if region.Report.Zone == nil || !r.Mail && !r.Webhook {
			continue
		}
		at, told := region.Report.lastDue(now), s.Reports[name]
		ahead := told > now.In(region.Report.Zone).Format(time.DateOnly) // by a clock that was
		if now.Sub(at) <= late && (told < at.Format(time.DateOnly) || ahead) {
			due = append(due, name)
		}
	}
	slices.Sort(due)
	return due
}

// lastDue is when the report was due last, on the clock of its zone.
func (d Daily) lastDue(now time.Time) time.Time {
	local := now.In(d.Zone)
	at := time.Date(local.Year(), local.Month(), local.Day(), d.Hour, d.Minute, 0, 0, d.Zone)
	if now.Before(at) { // yesterday's, for which the Core may have been away over midnight
		at = time.Date(local.Year(), local.Month(), local.Day()-1, d.Hour, d.Minute, 0, 0, d.Zone)
	}
	return at
}

// AddReport queues a region's report as the one that was due last.
func (s *State) AddReport(now time.Time, r *Rules, rep Report) {
	if s.Reports == nil {
		s.Reports = map[string]string{}
	}
	day := r.Regions[rep.Region].Report.lastDue(now).Format(time.DateOnly)
	s.Reports[rep.Region] = day
	n := &Notice{ID: "report-" + rep.Region + "-" + day, Kind: Morning, At: now, Report: &rep}
	n.To = r.recipientsOf(n)
	s.addNotice(n)
}
