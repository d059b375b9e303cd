package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/ledger"
)

// life is a Core's process: a service over a ledger file. end ends it, with all jobs.
func life(t *testing.T, path string) (s *Service, end func()) {
	t.Helper()
	l, err := ledger.Open(t.Context(), path, ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), Options{Store: &l.Jobs, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "ledger.db") }

// follow returns the lines and the end of a job.
func follow(t *testing.T, s *Service, id string) (lines string, end ledger.Job) {
	t.Helper()
	end, err := s.Follow(t.Context(), id, func(text []byte, missed int) error {
		lines += fmt.Sprintf("%s+%d ", text, missed)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lines, end
}

// TestOutlivesItsClient checks that a job continues when its client has gone, that others see its progress and its lines, and
// that it is listed after a restart.
func TestOutlivesItsClient(t *testing.T) {
	path := newPath(t)
	s, end := life(t, path)
	client, leave := context.WithCancel(t.Context())
	reported, finish := make(chan bool), make(chan bool)
	j, err := s.Start(client, ledger.Job{Kind: "publish", Who: "kay", Channel: "package"}, func(ctx context.Context, send func(Line)) []byte {
		send(Line{Text: []byte("one")})
		send(Line{Text: []byte("half"), Progress: true})
		close(reported)
		<-finish
		if ctx.Err() != nil {
			return []byte("ended with its client")
		}
		send(Line{Text: []byte("two")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	leave()
	<-reported
	if x, err := s.Show(t.Context(), j.ID); err != nil || x.State != Running || string(x.Progress) != "half" || string(x.Lines) != "one\n" || x.Who != "kay" {
		t.Errorf("%+v %v", x, err)
	}
	go close(finish)
	if lines, x := follow(t, s, j.ID); lines != "one+0 half+0 two+0 " && lines != "one+0 two+0 " || x.State != Done {
		t.Errorf("%q, %+v", lines, x)
	}
	end()
	s, end = life(t, path)
	defer end()
	if lines, x := follow(t, s, j.ID); lines != "one+0 two+0 " || x.State != Done || x.Ended.IsZero() {
		t.Errorf("after a restart: %q, %+v", lines, x)
	}
	if list, err := s.List(t.Context(), "", 10); err != nil || len(list) != 1 || list[0].ID != j.ID {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := s.Show(t.Context(), "ff"); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
}

// untilStopped is work that ends with its context.
func untilStopped(ctx context.Context, send func(Line)) []byte {
	<-ctx.Done()
	return []byte(context.Cause(ctx).Error())
}

// TestEnds checks the state of a job that a person, the end of the Core or its crash has ended, and of one that failed.
func TestEnds(t *testing.T) {
	path := newPath(t)
	s, end := life(t, path)
	start := func(w Work) string {
		t.Helper()
		j, err := s.Start(t.Context(), ledger.Job{Kind: "sync"}, w)
		if err != nil {
			t.Fatal(err)
		}
		return j.ID
	}
	stopped, failed, running := start(untilStopped), start(func(context.Context, func(Line)) []byte { return []byte("no") }), start(untilStopped)
	for range 2 { // the second changes nothing
		if x, err := s.Stop(t.Context(), stopped, "kay"); err != nil || x.State != Stopped || string(x.Error) != "kay stopped this job" {
			t.Errorf("%+v %v", x, err)
		}
	}
	if _, x := follow(t, s, failed); x.State != Failed || string(x.Error) != "no" {
		t.Errorf("%+v", x)
	}
	if _, err := s.Stop(t.Context(), "ff", "kay"); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	end()
	if _, err := s.Start(t.Context(), ledger.Job{}, untilStopped); !errors.Is(err, ErrEnding) {
		t.Error(err)
	}
	l, err := ledger.Open(t.Context(), path, ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Jobs.Add(t.Context(), ledger.Job{ID: "crashed", State: Running, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, end = life(t, path)
	defer end()
	for _, id := range []string{running, "crashed"} {
		if x, err := s.Show(t.Context(), id); err != nil || x.State != Interrupted || x.Ended.IsZero() {
			t.Errorf("%s: %+v %v", id, x, err)
		}
	}
}

// TestBounds checks the number of running jobs and the size of a result.
func TestBounds(t *testing.T) {
	s, end := life(t, newPath(t))
	defer end()
	long := bytes.Repeat([]byte("x"), maxLines/4)
	sent, finish := make(chan bool), make(chan bool)
	j, err := s.Start(t.Context(), ledger.Job{}, func(_ context.Context, send func(Line)) []byte {
		for range 10 {
			send(Line{Text: long})
		}
		close(sent)
		<-finish
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-sent
	go close(finish)
	lines, missed := 0, 0
	if _, err := s.Follow(t.Context(), j.ID, func(_ []byte, m int) error { lines, missed = lines+1, missed+m; return nil }); err != nil {
		t.Fatal(err)
	}
	if lines > 4 || lines+missed != 10 && lines+missed != 0 {
		t.Errorf("%d lines, %d missed", lines, missed)
	}
	// One person gets a part of the places; the others get the rest.
	started := func(who string) (n int, err error) {
		for ; err == nil; n++ {
			_, err = s.Start(t.Context(), ledger.Job{Who: who}, untilStopped)
		}
		return n - 1, err
	}
	for _, who := range []string{"kay", "ben", "eve"} {
		if n, err := started(who); n != maxEach || !errors.Is(err, ErrMany) {
			t.Errorf("%s: %d jobs, %v", who, n, err)
		}
	}
	if n, err := started("sam"); n != maxEach || !errors.Is(err, ErrBusy) && !errors.Is(err, ErrMany) {
		t.Errorf("the last: %d jobs, %v", n, err)
	}
	if _, err := s.Start(t.Context(), ledger.Job{Who: "joe"}, untilStopped); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond all places: %v", err)
	}
}

// TestFirstDigits finds a job by the first digits of its id, unless several begin so.
func TestFirstDigits(t *testing.T) {
	l, err := ledger.Open(t.Context(), newPath(t), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, id := range []string{"aa10", "aa1f", "ab00"} {
		if err := l.Jobs.Add(t.Context(), ledger.Job{ID: id, Kind: "sync", Started: time.Now(), State: Running}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"ab": "ab00", "AB0": "ab00", "aa1f": "aa1f", "aa10": "aa10", "aa1": "", "a": "", "": "", "ac": "", "ab000": "", "%": ""} {
		j, err := l.Jobs.Get(t.Context(), prefix)
		if j.ID != want || (want == "") != errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%q: found %q, %v; want %q", prefix, j.ID, err, want)
		}
	}
}
