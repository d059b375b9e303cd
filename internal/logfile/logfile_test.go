package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nightferry/internal/durable"
)

// TestRotates checks that a file is rotated by size and by age and that an earlier process's file is continued. No line
// is lost or torn until its file is the oldest.
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

// TestThin: of 5,000 equal messages a second only a few pass, with the number
// of suppressed ones. Messages of another site or with another text pass.
func TestThin(t *testing.T) {
	now := time.Now()
	x := NewThinner(func() time.Time { return now })
	passed, told := 0, int64(0)
	const minute = 300_000
	for range minute {
		now = now.Add(200 * time.Microsecond)
		if ok, n := x.Pass("WARN", "trying again", "osaka"); ok {
			passed++
			told += n
		}
	}
	if passed < burst || passed > burst+7 || told < minute/2 {
		t.Errorf("%d messages passed, and they stand for %d", passed, told)
	}
	for _, other := range [][]string{{"WARN", "trying again", "lisbon"}, {"INFO", "started"}} {
		if ok, n := x.Pass(other...); !ok || n != 0 {
			t.Errorf("%q: %v, %d", other, ok, n)
		}
	}
}

// TestOpensAgain: the folder takes no new file while the log is rotated. The
// log continues as soon as it does.
func TestOpensAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.log")
	l, err := Open(path, Options{Size: 20, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) error { _, err := l.Write([]byte(s)); return err }
	if err := write("0123456789\n"); err != nil {
		t.Fatal(err)
	}
	// Neither the old nor a new file can be opened under the log's name.
	root := l.root
	missing, err := durable.Open(t.TempDir(), durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(missing.Dir(), "agent.log"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent.log/x", "agent.log.1"} { // it cannot be renamed away either
		if err := os.MkdirAll(filepath.Join(missing.Dir(), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(missing.Dir(), "agent.log.1", "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l.o.Keep, l.root = 1, missing
	for range 2 {
		if err := write("abcdefghijklmno\n"); err == nil {
			t.Fatal("a line was written to nowhere")
		}
	}
	l.root = root
	if err := write("again\n"); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(b), "again\n") {
		t.Errorf("%q, %v", b, err)
	}
	if err := errors.Join(l.Close(), missing.Close()); err != nil {
		t.Error(err)
	}
}

// TestFolderIsALink: the folder may be a link, the file may not.
func TestFolderIsALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Logf("this account may make no links: nothing is tried: %v", err)
		return
	}
	l, err := Open(filepath.Join(link, "core.log"), Options{Now: time.Now})
	if runtime.GOOS == "windows" {
		if err == nil {
			t.Error("a link was followed")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	_, werr := l.Write([]byte("a line\n"))
	b, err := os.ReadFile(filepath.Join(dir, "real", "core.log"))
	if err := errors.Join(werr, err, l.Close()); err != nil || string(b) != "a line\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "real", "agent.log")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "real", "agent.log"), Options{Now: time.Now}); err == nil {
		t.Error("the log follows a link to another file")
	}
}
