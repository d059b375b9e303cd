package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nightferry/internal/clock"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

var day = time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLogs(t *testing.T, obs durable.Observer) *Logs {
	t.Helper()
	l, err := openLogs(filepath.Join(t.TempDir(), "logs"), obs)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	changed, err := l.Prepare(map[string]Access{"core": {}, "apac": {}, "emea": {}})
	must(t, err)
	if len(changed) != 0 {
		t.Fatalf("new folders are reported: %v", changed)
	}
	return l
}

func at(domain, site string, date time.Time, run int) Place {
	return Place{Domain: domain, Site: site, Channel: "package", Date: date, Run: fmt.Sprintf("%032x", run)}
}

func write(t *testing.T, l *Logs, p Place, files ...File) {
	t.Helper()
	w, err := l.Create(p, Header{Release: 7, Files: int64(len(files)), Started: p.Date})
	must(t, err)
	for _, f := range files {
		must(t, w.Line(f))
	}
	must(t, w.Close(End{State: "verified", Finished: p.Date.Add(time.Minute), Totals: runs.Totals{Counts: runs.Counts{Added: int64(len(files))}}}))
}

func read(t *testing.T, l *Logs, path string) (Header, []File, End) {
	t.Helper()
	var files []File
	h, e, err := l.Scan(path, func(f File) error { files = append(files, f); return nil })
	must(t, err)
	return h, files, e
}

func paths(t *testing.T, l *Logs, f Filter) (list []string) {
	t.Helper()
	must(t, l.List(f, func(g Log) error { list = append(list, g.Path); return nil }))
	return list
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func TestALogIsWrittenWholeAndFound(t *testing.T) {
	l := newLogs(t, nil)
	files := []File{
		{Path: "a & b <c>.msi", Outcome: "added", Size: 12, Fetched: 12, SHA256: strings.Repeat("ab", 32), At: day},
		{Path: "evil\x1b[2J\u202egnp.exe\u2028\x7f\u0085\x80\xff\ufffd\U000e0001", Outcome: "failed", Cause: "bad\nname \xfe", From: "old\x00"},
	}
	p := at("apac", "osaka", day, 1)
	write(t, l, p, files...)
	write(t, l, at("", "", day, 2))
	const want = "apac/osaka/package/2026-03-01/00000000000000000000000000000001.jsonl"
	raw, err := os.ReadFile(filepath.Join(l.root.Dir(), filepath.FromSlash(want)))
	must(t, err)
	lines := bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
	if len(lines) != 4 || !bytes.Contains(lines[1], []byte(`"a & b <c>.msi"`)) {
		t.Fatalf("not what a person greps:\n%s", raw)
	}
	for _, r := range string(bytes.ReplaceAll(raw, []byte("\n"), nil)) {
		if !unicode.IsPrint(r) || r == '\ufffd' {
			t.Fatalf("%q reaches the terminal", r)
		}
	}
	h, got, e := read(t, l, want)
	same(t, "header", h, Header{Version: Version, Run: p.Run, Domain: "apac", Site: "osaka", Channel: "package", Release: 7, Files: 2, Started: day})
	same(t, "lines", got, files)
	same(t, "end", e, End{State: "verified", Finished: day.Add(time.Minute), Lines: 2, Totals: runs.Totals{Counts: runs.Counts{Added: 2}}})

	write(t, l, p) // rendered again
	if _, got, _ := read(t, l, want); len(got) != 0 {
		t.Fatal("the older log is still there")
	}
	const core = "core/package/2026-03-01/00000000000000000000000000000002.jsonl"
	same(t, "all", paths(t, l, Filter{}), []string{want, core})
	same(t, "of the Core", paths(t, l, Filter{Core: true}), []string{core})
	same(t, "of a site", paths(t, l, Filter{Site: "osaka", Since: day, Until: day}), []string{want})
	if got := paths(t, l, Filter{Since: day.AddDate(0, 0, 1)}); got != nil {
		t.Fatalf("logs of another day: %v", got)
	}
}

func TestNamesComeBackAsTheyWere(t *testing.T) {
	l := newLogs(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		b := rapid.OneOf(rapid.Custom(func(r *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(r, "b")) }), rapid.String(),
			rapid.SampledFrom([]string{`\udc80`, "\\\xff\\", "\U0001f600\xed\xa0\x80", `"\u`, "\xf0\x9f"}))
		f := File{Path: b.Draw(r, "path"), Cause: b.Draw(r, "cause"), From: b.Draw(r, "from"), Outcome: "failed"}
		write(t, l, at("apac", "osaka", day, 1), f)
		_, got, _ := read(t, l, at("apac", "osaka", day, 1).Path())
		same(t, "file", got, []File{f})
	})
}

// failing returns an error for the n-th change.
type failing struct{ n int }

var errFailing = errors.New("disk full")

func (f *failing) Before(durable.Op) error {
	if f.n--; f.n == 0 {
		return errFailing
	}
	return nil
}

// Whichever step fails, the name holds the old log or the new one.
func TestNoHalfLogIsSeen(t *testing.T) {
	for n := 1; ; n++ {
		obs := &failing{}
		l := newLogs(t, obs)
		p := at("apac", "osaka", day, 1)
		write(t, l, p, File{Path: "old"})
		obs.n = n
		w, err := l.Create(p, Header{})
		if err == nil {
			if err = w.Line(File{Path: "new"}); err == nil {
				err = w.Close(End{State: "verified"})
			}
			w.Abort()
		}
		_, files, _ := read(t, l, p.Path())
		if err == nil {
			same(t, "the log", files, []File{{Path: "new"}})
			if n < 6 {
				t.Fatalf("only %d changes were seen", n)
			}
			return
		}
		if !errors.Is(err, errFailing) {
			t.Fatal(err)
		}
		if files[0].Path != "old" && files[0].Path != "new" {
			t.Fatalf("failure %d: the log holds %v", n, files)
		}
	}
}

func TestAbort(t *testing.T) {
	l := newLogs(t, nil)
	w, err := l.Create(at("apac", "osaka", day, 1), Header{})
	must(t, err)
	must(t, w.Line(File{Path: "x"}))
	w.Abort()
	w.Abort()
	if err := w.Close(End{State: "x"}); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("close after abort: %v", err)
	}
	list, err := l.root.ReadDir("apac/osaka/package/2026-03-01")
	must(t, err)
	if len(list) != 0 {
		t.Fatalf("left: %v", list)
	}
	for _, p := range []Place{at("..", "osaka", day, 1), at("apac", "", day, 1), at("core", "osaka", day, 1), at("apac", "osaka", time.Time{}, 1),
		{Channel: "package", Date: day, Run: "../x"}} {
		if _, err := l.Create(p, Header{}); err == nil {
			t.Fatalf("%+v was accepted", p)
		}
	}
	if _, err := l.Create(at("unprepared", "osaka", day, 1), Header{}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a log in a folder with nobody's access: %v", err)
	}
}

func TestDamagedLogs(t *testing.T) {
	l := newLogs(t, nil)
	p := at("apac", "osaka", day, 1)
	write(t, l, p, File{Path: "a"}, File{Path: "b"})
	file := filepath.Join(l.root.Dir(), filepath.FromSlash(p.Path()))
	good, err := os.ReadFile(file)
	must(t, err)
	lines := bytes.SplitAfter(good, []byte("\n"))
	for what, bad := range map[string][]byte{
		"empty":            nil,
		"cut off":          good[:len(good)-2],
		"no closing line":  bytes.Join(lines[:3], nil),
		"no header":        bytes.Join(lines[1:], nil),
		"a line is gone":   bytes.Join([][]byte{lines[0], lines[1], lines[3]}, nil),
		"a line twice":     bytes.Join([][]byte{lines[0], lines[1], lines[1], lines[2], lines[3]}, nil),
		"garbage":          bytes.Replace(good, []byte(`"a"`), []byte(`"a`), 1),
		"after the end":    append(bytes.Clone(good), lines[1]...),
		"two of them":      append(bytes.Clone(good), good...),
		"a line too large": bytes.Replace(good, []byte(`"a"`), fmt.Appendf(nil, "%q", strings.Repeat("x", maxLine)), 1),
	} {
		must(t, os.WriteFile(file, bad, 0o640))
		if _, _, err := l.Scan(p.Path(), func(File) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, os.WriteFile(file, bytes.Replace(good, fmt.Appendf(nil, `log":%d`, Version), fmt.Appendf(nil, `log":%d`, Version+1), 1), 0o640))
	if _, _, err := l.Scan(p.Path(), nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format %d, this program reads format %d", Version+1, Version)) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestPurge(t *testing.T) {
	l := newLogs(t, nil)
	old := day.AddDate(0, 0, -40)
	write(t, l, at("apac", "osaka", old, 1))
	write(t, l, at("apac", "osaka", day, 2))
	write(t, l, at("emea", "paris", old, 3), File{Path: "x"})
	write(t, l, at("", "", old, 4))
	w, err := l.Create(at("emea", "paris", old, 5), Header{}) // killed while writing
	must(t, err)
	must(t, w.out.Flush())
	must(t, w.file.Close())
	write(t, l, at("emea", "lyon", old, 6))
	kept := filepath.Join(l.root.Dir(), "emea", "lyon", "package", old.Format(dayLayout), "notes.txt")
	must(t, os.WriteFile(kept, nil, 0o640))

	for _, keep := range []time.Duration{0, 40*24*time.Hour + 1} {
		p, err := l.Purge(clock.CalendarAt(day), keep)
		must(t, err)
		same(t, "nothing to purge", p, Purged{})
	}
	p, err := l.Purge(clock.CalendarAt(day), 30*24*time.Hour)
	must(t, err)
	if p.Files != 5 || p.Folders != 1+3+2 || p.Bytes == 0 {
		t.Fatalf("purged %+v", p)
	}
	same(t, "left", paths(t, l, Filter{}), []string{at("apac", "osaka", day, 2).Path()})
	if _, err := os.Lstat(kept); err != nil {
		t.Fatal("what is no log was removed")
	}
	for _, d := range []string{"apac", "emea", "core"} {
		if _, err := l.root.Lstat(d); err != nil {
			t.Fatalf("the folder with the access of %s: %v", d, err)
		}
	}
}

// TestOneLine checks that lines stay separated, and that all other characters
// that a terminal would interpret are escaped.
func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"one": "one", "": "", "\n\n": "", "two names:\n  a\n  b\n": "two names: a; b", "a\r\nb": "a; b", "a\rb\x1b[2J": `a\rb\x1b[2J`, "a\u2028b\n\u202ec": `a\u2028b; \u202ec`,
	} {
		if got := OneLine(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"résumé 日本.txt": "résumé 日本.txt", "a\x1b[2Jb": `a\x1b[2Jb`, "\u202egpj": `\u202egpj`, "\u2028": `\u2028`,
		"\x7f": `\x7f`, "\u0085": `\u0085`, "\xff": `\xff`, "\ufffd": `\ufffd`, "\n": `\n`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// stays is an observer that lets one file stay.
type stays string

func (name stays) Before(op durable.Op) error {
	if op.Kind == durable.Remove && op.Name == string(name) {
		return errStays
	}
	return nil
}

var errStays = errors.New("it cannot be deleted")

// TestPurgeGoesOn: a log that cannot be deleted is reported, and keeps no other from being purged.
func TestPurgeGoesOn(t *testing.T) {
	old := day.AddDate(0, 0, -40)
	first := at("apac", "osaka", old, 1)
	l := newLogs(t, stays(first.Path()))
	write(t, l, first)
	for i, p := range []Place{at("apac", "osaka", old, 2), at("emea", "paris", old.AddDate(0, 0, 1), 3)} {
		p.Run = fmt.Sprintf("%032x", i+2)
		write(t, l, p)
	}
	p, err := l.Purge(clock.CalendarAt(day), 30*24*time.Hour)
	if !errors.Is(err, errStays) || p.Files != 2 {
		t.Errorf("purged %+v, %v", p, err)
	}
	same(t, "left", paths(t, l, Filter{}), []string{first.Path()})
}
