package alert

import (
	"slices"
	"time"
)

// Message is a mail or webhook call to one recipient, due now.
type Message struct {
	To      string
	ID      string // the same for every attempt with the same notices
	Notices []Notice
	// Late means that delivery failed before; all notices are then in one
	// message.
	Late    bool
	Dropped int64 // notices that were too many to keep

	covers []string  // ids of the notices that it replaces
	at     time.Time // when it was due
}

// Messages returns the messages to send now. A recipient who was unreachable gets
// one message with everything. An incident that opened and ended meanwhile
// appears in it once. A recipient of many messages within an hour gets the further notices together, every quarter of
// an hour.
func (s *State) Messages(now time.Time, r *Rules) []Message {
	known := r.listTargets()
	var out []Message
	for _, target := range known {
		fault := s.Failing[target]
		if fault != nil && !fault.Due(now) {
			continue
		}
		recent := s.sentWithin(target, now)
		if len(recent) >= maxHourly && now.Sub(recent[len(recent)-1]) < collected {
			continue
		}
		var mine []*Notice
		for _, n := range s.Queue {
			if slices.Contains(n.To, target) {
				mine = append(mine, n)
			}
		}
		if len(mine) == 0 {
			continue
		}
		list := latestNotices(mine, r.scopeOf(target))
		if fault != nil || len(list) > maxSingle || len(recent)+len(list) > maxHourly || target == Hook {
			l := Message{To: target, ID: mine[len(mine)-1].ID, Late: fault != nil, Dropped: s.Dropped, at: now}
			for _, e := range list {
				l.Notices = append(l.Notices, e.notice)
				l.covers = append(l.covers, e.covers...)
			}
			out = append(out, l)
			continue
		}
		for _, e := range list {
			out = append(out, Message{To: target, ID: e.notice.ID, Notices: []Notice{e.notice}, covers: e.covers, at: now})
		}
	}
	return out
}

// sentWithin returns when messages were sent to a recipient within the last hour.
func (s *State) sentWithin(target string, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(s.Sent[target]), func(at time.Time) bool { return at.After(now) || now.Sub(at) >= time.Hour })
}

type entry struct {
	notice Notice
	covers []string
}

// latestNotices keeps the latest notice on each incident, as the recipient may see
// it.
func latestNotices(list []*Notice, sc scope) []entry {
	var out []entry
	at := map[int64]int{}
	for _, n := range list {
		c := *n
		c.To = nil
		if n.Incident != nil {
			seen, _ := n.Incident.seenBy(sc)
			c.Incident = &seen
			if i, ok := at[seen.ID]; ok {
				if c.Kind != Resolved && out[i].notice.Kind == Opened {
					c.Kind = Opened // the recipient does not know of it yet
				}
				out[i] = entry{c, append(out[i].covers, n.ID)}
				continue
			}
			at[seen.ID] = len(out)
		}
		out = append(out, entry{c, []string{n.ID}})
	}
	return out
}

// Delivered records that a message was delivered.
func (s *State) Delivered(l *Message) {
	delete(s.Failing, l.To)
	if l.To != Hook {
		if s.Sent == nil {
			s.Sent = map[string][]time.Time{}
		}
		s.Sent[l.To] = append(s.sentWithin(l.To, l.at), l.at)
	}
	for _, n := range s.Queue {
		if slices.Contains(l.covers, n.ID) {
			n.To = slices.DeleteFunc(n.To, func(t string) bool { return t == l.To })
		}
	}
	s.dropDelivered()
	if len(s.Queue) == 0 {
		s.Dropped = 0
	}
}

// Due reports whether to try the recipient now. If the next try is further away
// than the longest wait, a clock that was ahead set it.
func (f *Fault) Due(now time.Time) bool {
	return !now.Before(f.Next) || f.Next.Sub(now) > lastRetry
}

// Failed records that a recipient could not be reached, and when to try again.
func (s *State) Failed(now time.Time, target string, why error) {
	if s.Failing == nil {
		s.Failing = map[string]*Fault{}
	}
	f := s.Failing[target]
	if f == nil {
		f = &Fault{Since: now}
		s.Failing[target] = f
	}
	wait := lastRetry
	if f.Times < 5 {
		wait = min(firstRetry<<f.Times, lastRetry)
	}
	f.Times++
	f.Next, f.Why = now.Add(wait), why.Error()
}

// Retarget removes recipients that the rules no longer name. It reports whether
// there were any.
func (s *State) Retarget(r *Rules) bool {
	known := r.listTargets()
	changed := false
	for t := range s.Failing {
		if !slices.Contains(known, t) {
			delete(s.Failing, t)
			changed = true
		}
	}
	for t := range s.Sent {
		if !slices.Contains(known, t) {
			delete(s.Sent, t)
			changed = true
		}
	}
	for _, n := range s.Queue {
		before := len(n.To)
		n.To = slices.DeleteFunc(n.To, func(t string) bool { return !slices.Contains(known, t) || !r.isConcerned(t, n) })
		changed = changed || len(n.To) != before
	}
	s.dropDelivered()
	return changed
}

func (s *State) dropDelivered() {
	s.Queue = slices.DeleteFunc(s.Queue, func(n *Notice) bool { return len(n.To) == 0 })
}

// TestNotice returns the message of an alert test.
func TestNotice(now time.Time, to string) Message {
	id := "test-" + now.UTC().Format("20060102T150405")
	return Message{To: to, ID: id, Notices: []Notice{{ID: id, Kind: Test, At: now}}}
}

// Targets lists all recipients, the webhook last.
func (r *Rules) Targets() []string { return r.listTargets() }
