package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nightferry/internal/api"
	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/core"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// TestCodeOf holds every sort of error that the program knows.
func TestCodeOf(t *testing.T) {
	store := func(k bucket.Kind) error {
		return &bucket.Error{Op: "get", Key: "channels/x/head", Kind: k, Err: errors.New("x")}
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), 1},
		{&usageError{err: errors.New("x")}, 2},
		{&foundError{"x"}, 3},
		{&manifest.NameError{Name: "Bad Name"}, 2},
		{&push.GuardError{Guard: "empty"}, 4},
		{&fleet.UnknownError{What: "site", Name: "berlyn"}, 14},
		{&apply.NoReleaseError{Number: 99}, 14},
		{&bucket.Error{Op: "get", Key: "halt", Err: bucket.ErrNoBucket}, 14},
		{&refusedError{}, 4},
		{durable.ErrLink, 4},
		{trust.ErrUntrusted, 5},
		{repo.ErrOlder, 5},
		{apply.ErrExpired, 5},
		{store(bucket.KindUnreachable), 6},
		{store(bucket.KindThrottled), 6},
		{store(bucket.KindDenied), 7},
		{store(bucket.KindExpired), 7},
		{repo.ErrKey, 7},
		{durable.ErrExposed, 7},
		{&keyError{err: fs.ErrNotExist}, 7},
		{&halt.Error{}, 8},
		{&core.ContestedError{Site: "osaka", Text: "two machines"}, 5},
		{repo.ErrConflict, 9},
		{repo.ErrExists, 9},
		{repo.ErrTooLong, 9},
		{durable.ErrBusy, 9},
		{collect.ErrBusy, 9},
		{core.ErrPublishing, 9},
		{&incompleteError{}, 10},
		{&apply.SpaceError{}, 11},
		{store(bucket.KindFull), 11},
		{frame.ErrDamaged, 12},
		{seal.ErrOpen, 12},
		{scan.ErrCorrupt, 12},
		{&repo.MissingError{}, 12},
		{&repo.CorruptError{}, 12},
		{&apply.IntegrityError{}, 12},
		{store(bucket.KindIntegrity), 12},
		{&bucket.Error{Op: "get", Key: "halt", Kind: bucket.KindNotExist, Err: errors.New("x")}, 12},
		{&bucket.Error{Op: "get", Key: "packs/ab/c", Kind: bucket.KindNotExist, Err: errors.New("x")}, 12},
		{&frame.NewerError{}, 13},
		{store(bucket.KindNotExist), 14},
		{fs.ErrNotExist, 14},
		{&absentError{}, 14},
		{&interruptedError{context.Canceled, resumes}, 130},
	} {
		if got := codeOf(fmt.Errorf("push %q: %w", "x", c.err)); got != c.want {
			t.Errorf("%T %v: exit code %d, want %d", c.err, c.err, got, c.want)
		}
	}
}

func TestShownEscapesWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"plain/ünïcode 日本":   "plain/ünïcode 日本",
		"a\x1b[2Jb":          `a\x1b[2Jb`,
		"a\nb\tc":            `a\nb\tc`,
		"bad\xff":            `bad\xff`,
		"c1\u009b31m":        `c1\u009b31m`,
		"fdp.\u202excod.exe": `fdp.\u202excod.exe`,
	} {
		if got := shown(in); got != want {
			t.Errorf("shown(%q) = %s, want %s", in, got, want)
		}
		e := env{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, now: time.Now, json: true}
		e.event("x", struct{ Path string }{in})
		out := e.stdout.(*bytes.Buffer).Bytes()
		if bytes.ContainsFunc(bytes.TrimSuffix(out, []byte("\n")), unsafeRune) {
			t.Errorf("%q: JSON holds it as it is: %q", in, out)
		}
		var back struct{ Path string }
		if err := json.Unmarshal(out, &back); err != nil || back.Path != strings.ToValidUTF8(in, "\ufffd") {
			t.Errorf("%q comes back as %q, %v", in, back.Path, err)
		}
	}
	if got := string(escapeJSON([]byte("\"\U000e0001\""))); got != `"\udb40\udc01"` {
		t.Errorf("beyond the basic plane: %s", got)
	}
}

// TestProgressFits draws what is as wide as it gets.
func TestProgressFits(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	wide := meter{Phase: "examine", Files: 99_999_999, TotalFiles: 99_999_999, Bytes: 1000 << 40, TotalBytes: 1001 << 40, Moved: 1000 << 40, Saved: 1000 << 40}
	samples := []sample{{now, 0, 0}, {now.Add(10 * time.Second), 1000 << 20, 1000 << 20}}
	for _, width := range []int{20, 40, 80, 200} {
		lines := render(wide, samples, width)
		if len(lines) > 2 {
			t.Errorf("%d lines", len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n >= width {
				t.Errorf("width %d: %d characters: %s", width, n, l)
			}
		}
	}
	lines := render(meter{Phase: "stage", Files: 12_345, TotalFiles: 23_080, Bytes: 1200 << 20, TotalBytes: 5200 << 20, Moved: 310 << 20, Saved: 890 << 20}, samples, 80)
	want := []string{
		"stage    [#####...................]  23 %  40 s left  100 MiB/s",
		"  12,345 of 23,080 files, 1.2 GiB of 5.1 GiB, 310 MiB moved, 890 MiB saved",
	}
	if len(lines) != 2 || lines[0] != want[0] || lines[1] != want[1] {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for _, m := range []meter{{Phase: "open"}, {Phase: "x", Files: 1}, {Phase: "x", Bytes: 5, TotalBytes: 3}, {Phase: "x", Bytes: -5, TotalBytes: 3}} {
		if got := render(m, nil, 80); len(got) == 0 {
			t.Errorf("%+v draws nothing", m)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "36h": 36 * time.Hour, "1.5d": 36 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := parseDays(in); err != nil || got != want {
			t.Errorf("parseDays(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "-1d", "5", "1e99d", "NaNd", "-5m"} {
		if got, err := parseDays(in); err == nil {
			t.Errorf("parseDays(%q) = %v", in, got)
		}
	}
	for _, in := range []string{"", "0", "0%", "-1", "101%", "x%", "NaN%"} {
		if _, _, err := parseMaxDelete(in); err == nil {
			t.Errorf("parseMaxDelete(%q) is accepted", in)
		}
	}
	if p, n, err := parseMaxDelete("12.5%"); p != 12.5 || n != 0 || err != nil {
		t.Errorf("12.5%%: %v %v %v", p, n, err)
	}
	if p, n, err := parseMaxDelete("100"); p != 100 || n != 100 || err != nil {
		t.Errorf("100: %v %v %v", p, n, err)
	}
	key := strings.Repeat("ab", 32)
	if b, err := parseRepositoryKey(" " + key + "\n"); err != nil || len(b) != 32 {
		t.Errorf("hexadecimal key: %v", err)
	}
	if b, err := parseRepositoryKey("q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="); err != nil || len(b) != 32 {
		t.Errorf("base64 key: %v", err)
	}
	for _, in := range []string{"", key[2:], key + "ab", "hunter2"} {
		if _, err := parseRepositoryKey(in); err == nil || in != "" && strings.Contains(err.Error(), in) {
			t.Errorf("key %q: %v", in, err)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1048575: "1.0 MiB", 10 << 30: "10 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %s, want %s", in, got, want)
		}
	}
	if got := count(2, "entry") + " " + count(1, "entry") + " " + group(-1234567); got != "2 entries 1 entry -1,234,567" {
		t.Error(got)
	}
}

// TestTimeLeftOfWhatIsResumed: what an earlier run has staged is no speed.
func TestTimeLeftOfWhatIsResumed(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{w: &out, width: func() int { return 80 }, now: func() time.Time { return now }}
	for _, m := range []meter{{Phase: "plan"}, {Phase: "stage"}, {Phase: "stage", Bytes: 900, TotalBytes: 1000}, {Phase: "stage", Bytes: 910, TotalBytes: 1000}} {
		now = now.Add(5 * time.Second)
		p.m = m
		out.Reset()
		p.draw()
	}
	if !strings.Contains(out.String(), "45 s left") {
		t.Errorf("10 bytes in 5 seconds, 90 to go: %q", out.String())
	}
}

// TestMovedOn: what people did to a source is told apart.
func TestMovedOn(t *testing.T) {
	for want, m := range map[string]api.Measurement{
		"1 new since the publish":                     {Moved: 1, New: 1},
		"1 new, 12 changed, 3 gone since the publish": {Moved: 16, New: 1, Changed: 12, Gone: 3},
		"2 gone since the publish":                    {Moved: 2, Gone: 2},
		"4 new, changed or gone since the publish":    {Moved: 4},
		"5 damaged": {Moved: 4, Damaged: 2, Unreadable: 3},
		"same":      {Same: 7},
	} {
		if got := measured(&m); got != want {
			t.Errorf("%+v is told as %q, want %q", m, got, want)
		}
	}
	r := api.Run{Trigger: "measure", State: "moved-on", Finished: time.Unix(1, 0), Totals: runs.Totals{Counts: runs.Counts{Added: 1, Deleted: 2}}}
	if got := runState(&r); got != "measured: 1 new, 2 gone since the publish" {
		t.Errorf("the run is told as %q", got)
	}
}
