package logfile

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRotates: a file is set aside by size and by age, no line is lost or torn
// until a file is the oldest, and an earlier process's file is continued.
func TestRotates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.log")
	now := time.Now()
	o := Options{Size: 100, Age: time.Hour, Keep: 3, Now: func() time.Time { return now }}
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	line := func(n int) string { return fmt.Sprintf("line %02d of the log file\n", n) }
	write := func(n int) {
		t.Helper()
		if _, err := l.Write([]byte(line(n))); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 30 {
		write(n)
		if n == 5 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = Open(path, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all string
	for n := 3; n >= 0; n-- {
		name := path
		if n > 0 {
			name = fmt.Sprintf("%s.%d", path, n)
		}
		b, err := os.ReadFile(name)
		if err != nil || len(b) > 100 {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		all += string(b)
	}
	lines := strings.Count(all, "\n")
	want := ""
	for n := 30 - lines; n < 30; n++ {
		want += line(n)
	}
	if all != want || lines < 12 {
		t.Errorf("kept %q", all)
	}
	if files, _ := os.ReadDir(dir); len(files) != 4 {
		t.Errorf("%d files", len(files))
	}
	now = now.Add(2 * time.Hour)
	write(30)
	if b, _ := os.ReadFile(path); string(b) != line(30) {
		t.Errorf("an old file goes on: %q", b)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestThin: 5,000 equal lines a second become a few, which say how many they
// stand for; another site's line and another message pass.
func TestThin(t *testing.T) {
	var b bytes.Buffer
	now := time.Now()
	log := slog.New(Thin(slog.NewTextHandler(&b, nil), func() time.Time { return now }, "site"))
	for range 300_000 { // a minute
		now = now.Add(200 * time.Microsecond)
		log.Warn("trying again", "cause", "no credential", "site", "osaka")
	}
	log.Warn("trying again", "site", "lisbon")
	log.Info("started")
	if n := strings.Count(b.String(), "site=osaka"); n < burst || n > burst+7 {
		t.Errorf("%d lines of one message", n)
	}
	if !strings.Contains(b.String(), "suppressed=") || !strings.Contains(b.String(), "lisbon") || !strings.Contains(b.String(), "started") {
		t.Error(b.String())
	}
	if _, ok := log.With("a", 1).Handler().(*thin); !ok {
		t.Error("a logger with attributes is not thinned")
	}
}
