package scan

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWalkLinksAndSpecials(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"real/f": "x"})
	for link, target := range map[string]string{"dir": "real", "file": "real/f", "gone": "none", "loop": "loop", "out": "/"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range walk(t, dir, WalkOptions{}) {
		got = append(got, it.Path+"="+it.Kind.String())
	}
	want := "dir=link file=link gone=link loop=link out=link pipe=special file real=folder real/f=file"
	if strings.Join(got, " ") != want {
		t.Errorf("%v", got)
	}
	// The walked folder itself may be a link.
	if got := paths(walk(t, filepath.Join(dir, "dir"), WalkOptions{})); len(got) != 1 || got[0] != "f" {
		t.Errorf("through a link: %v", got)
	}
}

func TestWalkMode(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"f": "x"})
	if err := os.Chmod(filepath.Join(dir, "f"), 0o751); err != nil {
		t.Fatal(err)
	}
	if got := walk(t, dir, WalkOptions{})[0].Stat.Mode; got != 0o751 {
		t.Errorf("mode %o", got)
	}
}

// A folder that is replaced by a link before it is listed is neither followed
// nor reported as empty.
func TestWalkFolderSwappedForLink(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"a": "", "real/f": "", "real/sub/g": "", "z/sub/f": ""})
	l, err := openLister(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.close() }()
	if err := os.RemoveAll(filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"z", "z/sub"} {
		if items, _, err := l.listFolder(name, nil, &scratch{}); err == nil {
			t.Errorf("%s: %v", name, items)
		}
	}
}

// A path too long for the system to open is an error, not an empty folder.
func TestPain02_UnreachableFolderIsAnError(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 200)
	fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	for range 25 {
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		var next int
		next, err = unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	var last Item
	if err := Walk(context.Background(), dir, WalkOptions{}, func(it Item) error { last = it; return nil }); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(last.Err, unix.ENAMETOOLONG) || last.Kind != Dir {
		t.Errorf("%d bytes deep: %v", len(last.Path), last.Err)
	}
}
