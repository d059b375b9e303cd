package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
)

var errEnough = errors.New("enough")

// follow returns the lines of a log after an event, until want lines of events or of missed ones have come.
func follow(t *testing.T, l *EventLog, after string, want int) (out []EventLine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := l.Follow(ctx, after, func(x *EventLine) error {
		if x.Event == nil && x.Missed == nil {
			return nil
		}
		if out = append(out, *x); len(out) == want {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%d lines of %d: %v", len(out), want, err)
	}
	return out
}

func started(n int) core.Event {
	return core.Event{Kind: core.RunStarted, Domain: "alpha", Site: "rome", Run: fmt.Sprint(n)}
}

// TestEventsResume checks that a client that comes back gets the events that it lacks, once, and the number of those that are gone.
func TestEventsResume(t *testing.T) {
	l := NewEventLog(time.Now)
	for n := range 10 {
		l.Add(started(n))
	}
	first := follow(t, l, l.boot+"-0", 4)
	rest := follow(t, l, first[3].ID, 6)
	for i, x := range append(first, rest...) {
		if x.Event == nil || x.Event.Run != fmt.Sprint(i) {
			t.Fatalf("line %d: %+v", i, x)
		}
	}
	for n := range eventsKept {
		l.Add(started(10 + n))
	}
	late := follow(t, l, first[3].ID, 1+eventsKept)
	if m := late[0].Missed; m == nil || m.Count != 6 || m.Restarted {
		t.Errorf("missed %+v, want 6", m)
	}
	if got := late[len(late)-1].Event.Run; got != fmt.Sprint(9+eventsKept) {
		t.Errorf("the last event is of run %s", got)
	}
	for _, id := range []string{"other-3", "nonsense", l.boot + "-999999", l.boot + "-x"} {
		if x := follow(t, l, id, 1)[0]; x.Missed == nil || !x.Missed.Restarted {
			t.Errorf("after %s: %+v", id, x)
		}
	}
}

// TestProgressIsCoalesced checks that progress is one event of a run in two seconds, also after the clock went back.
func TestProgressIsCoalesced(t *testing.T) {
	now := time.Unix(1000, 0)
	l := NewEventLog(func() time.Time { return now })
	progress := func(run string) { l.Add(core.Event{Kind: core.RunProgressed, Run: run}) }
	for range 100 {
		progress("a")
		progress("b")
	}
	if l.last != 2 {
		t.Errorf("%d events of two runs", l.last)
	}
	now = now.Add(progressEvery)
	progress("a")
	now = now.Add(-time.Hour)
	progress("b")
	if l.last != 4 {
		t.Errorf("%d events, want 4", l.last)
	}
	l.Add(core.Event{Kind: core.RunEnded, Run: "a"})
	for n := range 3 * maxShownRuns {
		progress(fmt.Sprint(n))
	}
	if len(l.shown) > maxShownRuns {
		t.Errorf("%d runs are remembered", len(l.shown))
	}
}

// TestEventsOverTheSocket checks filters, the resumption by header and that a Core that stops ends the stream.
func TestEventsOverTheSocket(t *testing.T) {
	dir := shortDir(t)
	l := NewEventLog(time.Now)
	b := newWorld().backend()
	b.Events = l
	c := serve(t, dir, ServerOptions{Now: time.Now, Routes: Routes(b)})
	for n := range 3 {
		l.Add(started(n))
		l.Add(core.Event{Kind: core.SiteConnected, Domain: "beta", Site: "oslo"})
	}
	var got []string
	err := c.Events(t.Context(), EventsQuery{Site: "rome", Kind: "started", After: l.boot + "-1"}, func(x *EventLine) error {
		if got = append(got, x.ID+" "+x.Event.Run); len(got) == 2 {
			return errEnough
		}
		return nil
	})
	if want := l.boot + "-3 1, " + l.boot + "-5 2"; !errors.Is(err, errEnough) || strings.Join(got, ", ") != want {
		t.Errorf("events %q, want %s: %v", got, want, err)
	}
	res := request(t, dir, "GET /v1/events?after=x HTTP/1.1\r\nHost: core\r\nLast-Event-ID: "+l.boot+"-5\r\n\r\n")
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != mediaEvents {
		t.Errorf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	text := make([]byte, 0, 512)
	for !strings.HasSuffix(string(text), "\n\n") || !strings.Contains(string(text), "data:") {
		one := make([]byte, 1)
		if _, err := res.Body.Read(one); err != nil {
			t.Fatal(err)
		}
		text = append(text, one...)
	}
	if !strings.Contains(string(text), "id: "+l.boot+"-6\nevent: connected\ndata: {") {
		t.Errorf("the stream is %q", text)
	}
}

// TestSlowReaderIsCut checks that a client that reads no events neither delays them nor stays.
func TestSlowReaderIsCut(t *testing.T) {
	dir := shortDir(t)
	l := NewEventLog(time.Now)
	ended := make(chan error, 1)
	serve(t, dir, ServerOptions{Now: time.Now, writeWithin: 200 * time.Millisecond, Routes: []Route{{Method: "GET", Path: "/v1/events", Handle: func(ctx context.Context, c *Call) (any, error) {
		err := l.Follow(ctx, "", c.SendEvent)
		ended <- err
		return nil, err
	}}}})
	request(t, dir, "GET /v1/events HTTP/1.1\r\nHost: core\r\n\r\n") // reads the header only
	large := core.Event{Kind: core.Trouble, Text: strings.Repeat("x", 1<<10)}
	limit := time.After(time.Minute)
	for {
		l.Add(large)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the stream ended without an error")
			}
			return
		case <-limit:
			t.Fatal("a client that reads nothing is still served")
		default:
		}
	}
}
