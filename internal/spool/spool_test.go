package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

func now() time.Time { return time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC) }

func openAt(t *testing.T, path string, max int64) *Spool {
	t.Helper()
	s, err := Open(t.Context(), path, Options{Now: now, MaxBytes: max})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsStayUntilAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b#%.db")
	s := openAt(t, path, 0)
	for i := range 10 {
		try(t, s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent, At: int64(i), Body: bytes.Repeat([]byte{byte(i)}, 100)}))
	}
	generation := s.Generation()
	try(t, s.Close())
	s = openAt(t, path, 0)
	if !bytes.Equal(generation, s.Generation()) {
		t.Error("another generation after it was opened again")
	}
	first, got, err := s.Batch(t.Context(), 3, 300)
	try(t, err)
	if first != 3 || len(got) != 2 || got[0].At != 2 {
		t.Errorf("batch from 3: first %d, %d events", first, len(got))
	}
	if _, got, err = s.Batch(t.Context(), 1, 1); err != nil || len(got) != 1 {
		t.Errorf("a batch that is too small must hold one event: %d, %v", len(got), err)
	}
	try(t, s.Acked(t.Context(), 10))
	try(t, s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent}))
	if n, next, err := s.Spooled(t.Context()); err != nil || n != 1 || next != 12 {
		t.Errorf("after all was acknowledged, the sequence must go on: %d spooled, next %d, %v", n, next, err)
	}
}

// TestRenumber: the spooled events start a new generation, complete and in order, after the open problems.
func TestRenumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path, 0)
	told := func() (all []string) {
		t.Helper()
		first, events, err := s.Batch(t.Context(), 1, 1<<20)
		try(t, err)
		if len(events) > 0 && first != 1 {
			t.Errorf("the first event has number %d", first)
		}
		for _, e := range events {
			if e.Kind != wire.ProblemEvent {
				all = append(all, fmt.Sprint("event ", e.At))
				continue
			}
			var p wire.Problem
			try(t, wire.Decode(e.Body, &p))
			all = append(all, fmt.Sprint(p.Kind, " of ", e.Channel, " over ", p.Resolved))
		}
		_, next, err := s.Spooled(t.Context())
		if err != nil || next != uint64(len(events))+1 {
			t.Errorf("after %d events comes number %d, %v", len(events), next, err)
		}
		return all
	}
	generations := map[string]bool{string(s.Generation()): true}
	renumber := func() {
		t.Helper()
		try(t, s.Renumber(t.Context()))
		generations[string(s.Generation())] = true
	}
	renumber()
	if got := told(); len(got) > 0 {
		t.Error(got)
	}
	problem := func(kind, channel string, over bool) {
		t.Helper()
		try(t, s.Problem(t.Context(), wire.Problem{Kind: kind, Text: "x", Since: 1, Resolved: over}, channel))
	}
	problem("disk", "a", false)
	problem("store", "", false)
	problem("store", "b", false)
	for i := range 5 {
		try(t, s.Append(t.Context(), wire.Event{Kind: wire.OutcomesEvent, At: int64(i)}))
	}
	try(t, s.Acked(t.Context(), 5)) // all problems and two events
	problem("store", "", true)
	renumber()
	want := []string{"disk of a over false", "store of b over false", "event 2", "event 3", "event 4", "store of  over true"}
	if diff := cmp.Diff(want, told()); diff != "" {
		t.Error(diff)
	}
	try(t, s.Close())
	generation := s.Generation()
	s = openAt(t, path, 0)
	if diff := cmp.Diff(want, told()); diff != "" || !bytes.Equal(generation, s.Generation()) {
		t.Errorf("opened again: %s", diff)
	}
	renumber()
	if len(generations) != 4 {
		t.Errorf("%d generations", len(generations))
	}
}

func TestKeptNeverGoesBack(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"), 0)
	try(t, s.Keep(t.Context(), State, Numbered{7, []byte("seven")}))
	if err := s.Keep(t.Context(), State, Numbered{6, []byte("six")}); err == nil {
		t.Error("an older state was kept")
	}
	got, err := s.Kept(t.Context(), State)
	if diff := cmp.Diff(Numbered{7, []byte("seven")}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// ordinals returns n outcomes of the files f0, f1, …
func ordinals(kind runs.Outcome, n int) Each {
	return func(yield func(File) error) error {
		for i := range n {
			if err := yield(File{fmt.Sprintf("f%d", i), wire.File{Outcome: kind, Ordinal: uint64(i)}}); err != nil {
				return err
			}
		}
		return nil
	}
}

// outcomes returns the outcomes in the spool's events.
func outcomes(t *testing.T, s *Spool) (all []wire.File) {
	t.Helper()
	_, events, err := s.Batch(t.Context(), 0, 64<<20)
	try(t, err)
	for _, e := range events {
		if e.Kind != wire.OutcomesEvent {
			continue
		}
		got, err := wire.DecodeOutcomes(e.Body)
		try(t, err)
		all = append(all, got...)
	}
	return all
}

func TestOutcomesAreCountedOnce(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path, 0)
	run := Run{ID: []byte("0123456789abcdef"), Channel: "package", Number: 3, Target: "/srv/p", Start: 9}
	try(t, s.Begin(ctx, run, wire.Event{Run: run.ID, Kind: wire.StartedEvent}))
	pass := func() int64 {
		t.Helper()
		p, err := s.Pass(ctx, run.Channel)
		try(t, err)
		return p
	}
	again := func() { // the process is killed
		t.Helper()
		try(t, s.Close())
		s = openAt(t, path, 0)
	}

	// One attempt only told outcomes, another died before its journal: neither changed anything.
	p := pass()
	try(t, s.Tell(ctx, run.Channel, p, []File{{"f1", wire.File{Outcome: runs.FileFailed, Ordinal: 1, Cause: "busy"}}}))
	try(t, s.Intend(ctx, run.Channel, p, ordinals(runs.FileAdded, 4500)))
	again()
	// The next process rolls the third attempt's commit forward. f7 could not be changed and is known only by its
	// path.
	p = pass()
	try(t, s.Intend(ctx, run.Channel, p, ordinals(runs.FileChanged, 5000)))
	again()
	p = pass()
	other := []File{{"f7", wire.File{Outcome: runs.FileLocked, Path: "f7", Cause: "open"}}}
	try(t, s.Settle(ctx, run.Channel, p, other))
	again()
	p = pass()
	try(t, s.Settle(ctx, run.Channel, p, other)) // the journal was still there
	// The same run retries f7 and succeeds.
	try(t, s.Intend(ctx, run.Channel, p, func(yield func(File) error) error {
		return yield(File{"f7", wire.File{Outcome: runs.FileChanged, Ordinal: 7, Fetched: 5}})
	}))
	try(t, s.Settle(ctx, run.Channel, p, nil))
	// The run starts a commit that does not happen.
	try(t, s.Intend(ctx, run.Channel, p, func(yield func(File) error) error {
		return yield(File{"f8", wire.File{Outcome: runs.FileDeleted, Ordinal: 8}})
	}))
	run.Pass = p
	var counts Counts
	try(t, s.Finish(ctx, run, &Held{Held: wire.Held{Number: 3, Verified: 5}, Target: run.Target}, func(c Counts) (wire.Event, *Failure, error) {
		counts = c
		return wire.Event{Run: run.ID, Kind: wire.FinishedEvent}, nil, nil
	}))

	try(t, s.Finish(ctx, run, nil, func(Counts) (wire.Event, *Failure, error) {
		t.Error("a run ends twice")
		return wire.Event{Run: run.ID, Kind: wire.FinishedEvent}, nil, nil
	}))

	seen := map[uint64]int{}
	for _, o := range outcomes(t, s) {
		if o.Outcome != runs.FileChanged || o.Path != "" || (o.Ordinal == 7) != (o.Fetched == 5) {
			t.Errorf("outcome %+v", o)
		}
		seen[o.Ordinal]++
	}
	for i := range uint64(5000) {
		if seen[i] != 1 {
			t.Errorf("file %d has %d outcomes", i, seen[i])
		}
	}
	if counts.Sent != 5000 || counts.Changed != 5000 || counts.Previous != 4999 {
		t.Errorf("counts %+v", counts)
	}
	if runs, err := s.Runs(ctx); err != nil || len(runs) != 0 {
		t.Errorf("runs under way: %v, %v", runs, err)
	}
	if start, err := s.Obeyed(ctx, run.Channel); err != nil || start != 9 {
		t.Errorf("obeyed order %d, %v", start, err)
	}
}

func TestCorruptFileIsSetAside(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte {
			return []byte("this is no database, and longer than a header of SQLite would be: it has a hundred bytes")
		},
		"zeros within":  func(b []byte) []byte { clear(b[4096:]); return b },
		"cut off":       func(b []byte) []byte { return b[:len(b)/2+100] },
		"header is bad": func(b []byte) []byte { copy(b[20:], bytes.Repeat([]byte{0xff}, 60)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s.db")
			s := openAt(t, path, 0)
			for range 100 {
				try(t, s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent, Body: make([]byte, 1000)}))
			}
			old := s.Generation()
			try(t, s.Close())
			b, err := os.ReadFile(path)
			try(t, err)
			b = spoil(b)
			try(t, os.WriteFile(path, b, 0o600))
			s = openAt(t, path, 0)
			if bytes.Equal(old, s.Generation()) {
				t.Error("the generation is the old one")
			}
			kept, err := os.ReadFile(s.Aside())
			if err != nil || !bytes.Equal(kept, b) || !strings.Contains(s.Aside(), "20260301T020000") {
				t.Errorf("set aside as %q, %d bytes, %v", s.Aside(), len(kept), err)
			}
			_, events, err := s.Batch(t.Context(), 0, 1<<20)
			if err != nil || len(events) != 1 || events[0].Kind != wire.ProblemEvent {
				t.Fatalf("events %v, %v", events, err)
			}
			var p wire.Problem
			try(t, wire.Decode(events[0].Body, &p))
			if p.Kind != CorruptProblem || p.Resolved {
				t.Errorf("problem %+v", p)
			}
		})
	}
}

func TestFullSpoolKeepsWhatItHas(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"), 256<<10)
	var err error
	n := uint64(0)
	for ; err == nil; n++ {
		err = s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent, Body: make([]byte, 10_000)})
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a full spool says %v", err)
	}
	if have, next, err := s.Spooled(t.Context()); err != nil || have != n-1 || next != n {
		t.Errorf("%d spooled, next %d, %v; want %d", have, next, err, n-1)
	}
	try(t, s.Acked(t.Context(), n-1))
	try(t, s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent, Body: make([]byte, 10_000)}))
}

func TestProblemIsToldOnceAndEndsOnce(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"), 0)
	for range 3 {
		try(t, s.Problem(t.Context(), wire.Problem{Kind: "clock", Text: "off", Since: 5}, ""))
	}
	if open, err := s.Problems(t.Context()); err != nil || len(open) != 1 || open[0].Since != 5 {
		t.Errorf("open problems %v, %v", open, err)
	}
	for range 3 {
		try(t, s.Problem(t.Context(), wire.Problem{Kind: "clock", Resolved: true}, ""))
	}
	if n, _, err := s.Spooled(t.Context()); err != nil || n != 2 {
		t.Errorf("%d events, %v", n, err)
	}
}

// TestPresigned: lent URLs are stored by channel and deleted when they expire. If two channels need a key, the URL that
// is valid longest is returned.
func TestPresigned(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "agent.db")
	s, err := Open(ctx, path, Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(s.KeepPresigned(ctx, "image", []Presigned{{"format", "a", 100}, {"old", "b", 10}, {"trust/2", "", 100}}))
	try(s.KeepPresigned(ctx, "driver", []Presigned{{"format", "c", 200}, {"packs/1", "d", 200}}))
	try(s.KeepPresigned(ctx, "driver", []Presigned{{"format", "c", 200}}))
	try(s.Close())
	s, err = Open(ctx, path, Options{Now: time.Now})
	try(err)
	got, err := s.Presigned(ctx, 50)
	try(err)
	if diff := cmp.Diff([]Presigned{{"format", "c", 200}, {"trust/2", "", 100}}, got); diff != "" {
		t.Error(diff)
	}
	try(s.KeepPresigned(ctx, "image", nil))
	if got, err = s.Presigned(ctx, 50); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	try(s.Close())
}
