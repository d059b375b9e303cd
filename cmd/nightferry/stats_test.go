package main

import (
	"strings"
	"testing"
	"time"
)

// TestStats: a run without a terminal tells how far it is as often as asked.
func TestStats(t *testing.T) {
	s := stats{every: time.Minute}
	now := time.Date(2026, 3, 4, 22, 0, 0, 0, time.UTC)
	var lines []string
	for n := range 200 {
		m := meter{Phase: "stage", Files: int64(n), TotalFiles: 200, Bytes: int64(n) << 20, TotalBytes: 200 << 20, Moved: int64(n) << 19}
		if l := s.line(m, now.Add(time.Duration(n)*time.Second)); l != "" {
			lines = append(lines, l)
		}
	}
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "2026-03-04 22:01:00Z stage") || !strings.Contains(lines[0], "30 %") || !strings.Contains(lines[0], "512 KiB/s") || strings.Contains(lines[0], "\n") {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if l := (&stats{}).line(meter{Phase: "stage"}, now); l != "" {
		t.Errorf("nobody asked: %q", l)
	}
}
