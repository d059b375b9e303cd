package core

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

func following(events <-chan Event, send func(Event) error, orders ...*awaited) *follower {
	f := &follower{open: map[[2]string]*awaited{}, events: events, send: send,
		last: func(context.Context, *awaited) (*ledger.Run, error) { return nil, nil }, why: func(context.Context, *awaited) string { return "" },
		halted: func(*awaited) *halt.Order { return nil }, contested: func(*awaited) string { return "" }}
	for _, o := range orders {
		o.Channel = "package"
		f.open[[2]string{o.Site, o.Channel}] = o
	}
	return f
}

// A run that was under way before the order is shown, but does not end the
// following, nor does one of another site.
func TestFollowRuns(t *testing.T) {
	ev := func(kind EventKind, site, run string) Event {
		return Event{Kind: kind, Site: site, Channel: "package", Run: run}
	}
	events := make(chan Event, 20)
	for _, e := range []Event{
		ev(RunEnded, "osaka", "old"),
		ev(RunProgressed, "osaka", "older"),
		ev(RunStarted, "lima", "x"),
		ev(RunStarted, "osaka", "new"),
		ev(RunEnded, "osaka", "old"),
		ev(RunProgressed, "osaka", "new"),
		ev(SiteConnected, "osaka", ""),
		ev(RunStarted, "porto", "p"),
		ev(RunEnded, "osaka", "new"),
		ev(RunEnded, "porto", "p"),
		ev(RunStarted, "osaka", "later"),
	} {
		events <- e
	}
	var got []string
	f := following(events, func(e Event) error {
		got = append(got, string(e.Kind)+" "+e.Site+" "+e.Run)
		return nil
	}, &awaited{Order: Order{Site: "osaka"}}, &awaited{Order: Order{Site: "porto"}})
	err := f.runFollow(t.Context(), nil, nil)
	want := []string{"progress osaka older", "started osaka new", "progress osaka new", "started porto p", "ended osaka new", "ended porto p"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := following(nil, nil, &awaited{Order: Order{Site: "osaka"}}).runFollow(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestFollowSurvivesLostEvents: with every event lost, the start and the end
// come from the ledger; the run from before the order is not taken for them.
func TestFollowSurvivesLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		old, run := &ledger.Run{ID: ledger.RunID{1}, Site: "osaka", Channel: "package", Finished: began, State: "verified"}, &ledger.Run{ID: ledger.RunID{2}, Site: "osaka", Channel: "package", State: ""}
		var got []string
		f := following(make(chan Event), func(e Event) error {
			got = append(got, string(e.Kind)+" "+e.Run[:min(2, len(e.Run))]+e.Text)
			return nil
		}, &awaited{Order: Order{Site: "osaka", before: old.ID.String()}})
		f.last = func(context.Context, *awaited) (*ledger.Run, error) {
			switch d := time.Since(began); {
			case d < 20*time.Second:
				return old, nil
			case d > time.Minute:
				ended := *run
				ended.Finished, ended.State = time.Now(), "verified"
				return &ended, nil
			}
			return run, nil
		}
		f.why = func(context.Context, *awaited) string {
			if time.Since(began) < 8*time.Second {
				return "rate is 0"
			}
			return "due"
		}
		look, silent := time.NewTicker(followLook), time.NewTicker(followSilence)
		if err := f.runFollow(t.Context(), look.C, silent.C); err != nil {
			t.Fatal(err)
		}
		want := []string{"not_started rate is 0", "not_started due", "started 02", "ended 02verified"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// TestFollowEndsAtAHalt: a run that a halt order stops, before the request, after
// it or in the middle, is not awaited; the others are.
func TestFollowEndsAtAHalt(t *testing.T) {
	order := &halt.Order{ID: halt.ID{7}, Scope: halt.All, Reason: "bad package", By: "root"}
	ended := func(site string) Event {
		return Event{Kind: RunEnded, Site: site, Channel: "package", Run: site, Ended: &ledger.Run{State: runs.Stopped}}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var got []string
		events := make(chan Event, 2)
		f := following(events, func(e Event) error {
			got = append(got, string(e.Kind)+" "+e.Site)
			return nil
		}, &awaited{Order: Order{Site: "osaka"}}, &awaited{Order: Order{Site: "lima"}}, &awaited{Order: Order{Site: "porto"}})
		events <- Event{Kind: RunStarted, Site: "porto", Channel: "package", Run: "porto"}
		f.halted = func(x *awaited) *halt.Order {
			if x.Site != "osaka" && time.Since(began) < 10*time.Second {
				return nil
			}
			return order
		}
		time.AfterFunc(15*time.Second, func() { events <- ended("porto") })
		look := time.NewTicker(followLook)
		err := f.runFollow(t.Context(), look.C, nil)
		var halted *halt.Error
		if !errors.As(err, &halted) || halted.Order.ID != order.ID {
			t.Errorf("got %v, want the halt order", err)
		}
		want := []string{"not_started osaka", "started porto", "not_started lima", "ended porto"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// TestFollowEndsAtAContest: a run of a site that is contested before it starts, or at its end, is not awaited, and its end is
// not shown. A halt order does not hide that.
func TestFollowEndsAtAContest(t *testing.T) {
	var got []string
	contested := map[string]bool{"osaka": true}
	events := make(chan Event, 3)
	f := following(events, func(e Event) error {
		got = append(got, string(e.Kind)+" "+e.Site)
		contested["lima"] = e.Kind == RunStarted && e.Site == "lima" || contested["lima"]
		return nil
	}, &awaited{Order: Order{Site: "osaka"}}, &awaited{Order: Order{Site: "lima"}}, &awaited{Order: Order{Site: "porto"}})
	f.contested = func(x *awaited) string {
		if contested[x.Site] {
			return "two machines"
		}
		return ""
	}
	f.halted = func(x *awaited) *halt.Order {
		if x.Site == "porto" {
			return &halt.Order{Scope: halt.All}
		}
		return nil
	}
	events <- Event{Kind: RunStarted, Site: "lima", Channel: "package", Run: "lima"}
	events <- Event{Kind: RunEnded, Site: "lima", Channel: "package", Run: "lima", Ended: &ledger.Run{State: runs.Verified}}
	err := f.runFollow(t.Context(), nil, nil)
	var contest *ContestedError
	if !errors.As(err, &contest) || contest.Text != "two machines" || contest.Remedy() == "" {
		t.Errorf("got %v, want that a site is contested", err)
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"not_started osaka", "not_started porto", "started lima"}, got); d != "" {
		t.Error(d)
	}
}
