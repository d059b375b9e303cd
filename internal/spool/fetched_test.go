package spool

import (
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/wire"
)

// TestFetchedOfAllAttempts: the bytes fetched by all attempts of a run are summed, also across restarts. The next
// run starts at zero.
func TestFetchedOfAllAttempts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool.db")
	begin := func(s *Spool) {
		t.Helper()
		try(t, s.Begin(t.Context(), Run{ID: make([]byte, 16), Channel: "package", Number: 1}, wire.Event{Channel: "package", Kind: wire.StartedEvent}))
	}
	for i := range 3 {
		s, err := Open(t.Context(), path, Options{Now: time.Now})
		try(t, err)
		if i == 0 {
			begin(s)
		}
		try(t, s.AddFetched(t.Context(), "package", 100, 40))
		try(t, s.AddFetched(t.Context(), "another", 7, 7))
		runs, err := s.Runs(t.Context())
		try(t, err)
		if want := int64(i + 1); len(runs) != 1 || runs[0].Fetched != 100*want || runs[0].Wire != 40*want {
			t.Errorf("after %d attempts: %+v", i+1, runs)
		}
		try(t, s.Close())
	}
	s, err := Open(t.Context(), path, Options{Now: time.Now})
	try(t, err)
	try(t, s.Finish(t.Context(), Run{ID: make([]byte, 16), Channel: "package"}, nil, func(Counts) (wire.Event, *Failure, error) {
		return wire.Event{Channel: "package", Kind: wire.FinishedEvent}, nil, nil
	}))
	begin(s)
	runs, err := s.Runs(t.Context())
	try(t, err)
	if len(runs) != 1 || runs[0].Fetched != 0 || runs[0].Wire != 0 {
		t.Errorf("the next run: %+v", runs)
	}
	try(t, s.Close())
}
