package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"time"

	"nightferry/internal/core"
)

const (
	eventsKept    = 4096            // for clients that reconnect
	eventsAtOnce  = 64              // copied while other goroutines wait
	progressEvery = 2 * time.Second // between two progress events of one run
	aliveEvery    = 15 * time.Second
	maxShownRuns  = 10_000
)

// EventLog keeps the newest events of a Core for the clients that follow them. An identifier of an event names the
// process, too: a client that comes back after a restart learns that it missed some.
type EventLog struct {
	now  func() time.Time
	boot string

	mu    sync.Mutex
	ring  [eventsKept]*Event
	last  uint64               // identifier of the newest event; 0: none yet
	added chan struct{}        // closed when an event is added
	shown map[string]time.Time // last progress, by run
}

// NewEventLog returns an empty log.
func NewEventLog(now func() time.Time) *EventLog {
	boot := make([]byte, 4)
	rand.Read(boot) // never fails (crypto/rand)
	return &EventLog{now: now, boot: hex.EncodeToString(boot), added: make(chan struct{}), shown: map[string]time.Time{}}
}

// Add keeps an event. It never waits for a client. Of the progress of a run it keeps one event in two seconds.
func (l *EventLog) Add(ev core.Event) {
	e := eventOf(&ev)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch ev.Kind {
	case core.RunProgressed:
		now := l.now()
		if since := now.Sub(l.shown[ev.Run]); since >= 0 && since < progressEvery {
			return
		}
		if len(l.shown) >= maxShownRuns {
			clear(l.shown)
		}
		l.shown[ev.Run] = now
	case core.RunEnded:
		delete(l.shown, ev.Run)
	}
	l.last++
	l.ring[l.last%eventsKept] = e
	close(l.added)
	l.added = make(chan struct{})
}

// parse returns the number of an identifier. known is false for one of another process.
func (l *EventLog) parse(id string) (n uint64, known bool) {
	boot, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	l.mu.Lock()
	defer l.mu.Unlock()
	return n, err == nil && boot == l.boot && n <= l.last
}

// after returns events after one, the number of the last of them, how many between are no longer kept, and a channel
// that is closed when there are more.
func (l *EventLog) after(n uint64) (list []*Event, last, missed uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last > n+eventsKept {
		missed = l.last - eventsKept - n
		n += missed
	}
	for ; n < l.last && len(list) < eventsAtOnce; n++ {
		list = append(list, l.ring[(n+1)%eventsKept])
	}
	return list, n, missed, l.added
}

// Follow calls send with each event after the one that is named, until ctx ends or send fails; an empty identifier
// means from now on. A line without an event reports missed events, or only shows that the Core is alive.
func (l *EventLog) Follow(ctx context.Context, after string, send func(*EventLine) error) error {
	l.mu.Lock()
	n := l.last
	l.mu.Unlock()
	restarted := false
	if after != "" {
		var known bool
		if n, known = l.parse(after); !known {
			n, restarted = 0, true // all that this process has kept
		}
	}
	if err := send(&EventLine{}); err != nil { // the client learns that it is connected
		return err
	}
	if restarted {
		if err := send(&EventLine{Missed: &Missed{Restarted: true}}); err != nil {
			return err
		}
	}
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		list, last, missed, more := l.after(n)
		if missed > 0 {
			if err := send(&EventLine{Missed: &Missed{Count: missed}}); err != nil {
				return err
			}
		}
		for i, e := range list {
			id := l.boot + "-" + strconv.FormatUint(last-uint64(len(list)-1-i), 10)
			if err := send(&EventLine{ID: id, Event: e}); err != nil {
				return err
			}
		}
		if n = last; len(list) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		case <-alive.C:
			if err := send(&EventLine{}); err != nil {
				return err
			}
		}
	}
}

// matches reports whether an event is one of those asked for.
func (q *EventsQuery) matches(e *Event) bool {
	for _, x := range [][2]string{{q.Domain, e.Domain}, {q.Site, e.Site}, {q.Channel, e.Channel}, {q.Kind, e.Kind}} {
		if x[0] != "" && x[0] != x[1] {
			return false
		}
	}
	return true
}
