package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"nightferry/internal/logfile"
)

// TestThinnedLog: a message that repeats is logged a few times, with a count of
// those left out; of two sites each is heard.
func TestThinnedLog(t *testing.T) {
	var b bytes.Buffer
	now := time.Now()
	log := slog.New(thinned{slog.NewTextHandler(&b, nil), logfile.NewThinner(func() time.Time { return now })}).With("version", "1")
	for n := range 1000 {
		log.Warn("trying again", "cause", n, "site", "osaka")
	}
	now = now.Add(time.Minute)
	log.Warn("trying again", "site", "osaka")
	log.Warn("trying again", "site", "lisbon")
	if n := strings.Count(b.String(), "osaka"); n != 21 || !strings.Contains(b.String(), "suppressed=980") || !strings.Contains(b.String(), "lisbon") {
		t.Errorf("%d lines: %s", n, b.String())
	}
}
