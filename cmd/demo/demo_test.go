package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestDemo runs the demo with less content and checks its output.
func TestDemo(t *testing.T) {
	goroot, err := goRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // Windows
	var out bytes.Buffer
	err = show(t.Context(), &out, []channel{
		{name: "package", from: filepath.Join(goroot, "src", "net"), skip: "http"},
		{name: "driver", from: filepath.Join(goroot, "src", "crypto")},
	}, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for l := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 && !strings.Contains(l, temp) {
			t.Errorf("%d characters: %s", n, l)
		}
	}
	if n := strings.Count(out.String(), " verified\n"); n != 24 {
		t.Errorf("%d rows say verified, want 24 (6 pulls as they go, 6 in the table, 12 of the fleet):\n%s", n, out.String())
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) != 0 {
		t.Errorf("the demo left %v behind, %v", left, err)
	}
}

// TestNight runs the night at its highest speed and requires every verdict to be yes, except the duration of
// the halt, which depends on the machine's load.
func TestNight(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // Windows
	var out bytes.Buffer
	if err := run(t.Context(), &out, maxSpeed, false); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	text := out.String()
	for l := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 && !strings.Contains(l, temp) {
			t.Errorf("%d characters: %s", n, l)
		}
	}
	for _, scene := range []string{
		"published before the first window", "stopped at the window's end", "goes on, not anew", "ap moved in its own night", "a flipped bit is repaired", "it is mailed",
		"emea moved in its own night", "amer moved in its own night", "each region's morning report", "the report has the runs' numbers",
	} {
		if !strings.Contains(text, "  yes "+scene) {
			t.Errorf("%q did not hold", scene)
		}
	}
	// A machine that runs other tests beside this one may need longer than the second, but transfers must stop.
	var speed, took float64
	_, line, found := strings.Cut(text, "a halt stops all within a second")
	if _, err := fmt.Sscanf(line, "%f MB/s; last byte after %f s", &speed, &took); !found || err != nil || took > (haltLimit-haltQuiet).Seconds() {
		t.Errorf("the halt did not stop all transfers: %.2f s, %v", took, err)
	}
	if t.Failed() {
		t.Log(text)
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) != 0 {
		t.Errorf("the demo left %v behind, %v", left, err)
	}
}
