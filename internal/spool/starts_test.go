package spool

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/wire"
)

// TestStarts: the record of starts survives a restart, names the latest processes and is bounded.
func TestStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool.db")
	var before Starts
	for n := range wire.MaxStarted + 3 {
		s, err := Open(t.Context(), path, Options{Now: time.Now})
		try(t, err)
		r, err := s.Start(t.Context(), bytes.Repeat([]byte{byte(n)}, 16))
		try(t, err)
		try(t, s.Close())
		kept := min(n+1, wire.MaxStarted)
		if r.Count != uint64(n+1) || len(r.Lineage) != 16 || len(r.Latest) != kept*wire.StartID || r.Latest[0] != byte(n) {
			t.Fatalf("start %d: %+v", n, r)
		}
		if n > 0 && (!bytes.Equal(r.Lineage, before.Lineage) || !bytes.HasPrefix(before.Latest, r.Latest[wire.StartID:])) {
			t.Fatalf("start %d does not continue the record: %+v, before %+v", n, r, before)
		}
		before = r
	}
}
