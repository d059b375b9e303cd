package main

import (
	"strings"
	"testing"
)

// TestHanging: causes of any length fit 80 columns, and their lines stand below each other.
func TestHanging(t *testing.T) {
	got := hanging("cause    ", strings.Repeat("a long cause ", 20)+"\nsecond line")
	lines := strings.Split(got, "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[0], "cause    a long") || lines[len(lines)-1] != "         second line" {
		t.Errorf("%q", got)
	}
	for _, l := range lines[1:] {
		if len(l) > 80 || !strings.HasPrefix(l, "         ") {
			t.Errorf("%d columns: %q", len(l), l)
		}
	}
}
