package commit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/durable"
)

// observer calls a function before each change.
type observer func(durable.Op) error

func (o observer) Before(op durable.Op) error { return o(op) }

// TestUndoKeepsTheSitesFiles: a commit is rolled back after the site has made entries at cleared paths. They stay,
// and the old files are set aside.
func TestUndoKeepsTheSitesFiles(t *testing.T) {
	errBlocked := errors.New("cannot be moved")
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, dir string)
		want      map[string]string // files after the rollback
		aside     []string          // contents of the files set aside
	}{
		"nothing":  {func(*testing.T, string) {}, map[string]string{"a": "old a", "d/in": "old in"}, nil},
		"a file":   {func(t *testing.T, dir string) { write(t, dir, "a", "new a") }, map[string]string{"a": "new a", "d/in": "old in"}, []string{"old a"}},
		"a folder": {func(t *testing.T, dir string) { write(t, dir, "a/x", "new x") }, map[string]string{"a/x": "new x", "d/in": "old in"}, []string{"old a"}},
		"a file for a folder": {func(t *testing.T, dir string) { write(t, dir, "d", "new d") },
			map[string]string{"a": "old a", "d": "new d"}, []string{"old in"}},
		"a file in a folder": {func(t *testing.T, dir string) { write(t, dir, "d/in", "new in") },
			map[string]string{"a": "old a", "d/in": "new in"}, []string{"old in"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "a", "old a")
			write(t, dir, "d/in", "old in")
			write(t, dir, "last", "blocks")
			root, err := durable.Open(dir, durable.Options{Observer: observer(func(op durable.Op) error {
				if op.Kind == durable.Rename && op.Name == "last" {
					c.meanwhile(t, dir)
					return errBlocked
				}
				return nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := root.MkdirAll("s/out", 0o755); err != nil {
				t.Fatal(err)
			}
			var told []error
			commit := New(root, Options{Dir: "s", Stage: "s", Out: "s/out", Next: "s/next", Aside: "s/aside",
				Stopped: func(context.Context) error { return nil }, OnAside: func(err error) { told = append(told, err) }})
			steps := []Step{
				{Kind: Out, Path: "a", Slot: "s/out/0", Size: -1},
				{Kind: Out, Path: "d/in", Slot: "s/out/1", Size: -1},
				{Kind: Clear, Path: "d", Mode: 0o755},
				{Kind: Out, Path: "last", Slot: "s/out/2", Size: -1},
			}
			err = commit.Write(func(yield func(Step) error) error {
				for _, s := range steps {
					if err := yield(s); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = commit.Replay(t.Context(), false)
			if blocked := (*BlockedError)(nil); !errors.As(err, &blocked) || blocked.Path != "last" {
				t.Fatalf("%v", err)
			}
			for path, want := range c.want {
				if b, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v, want %q", path, b, err, want)
				}
			}
			kept, err := filepath.Glob(filepath.Join(dir, "s", "aside", "*", "*"))
			if err != nil || len(kept) != len(c.aside) || len(told) != len(c.aside) {
				t.Fatalf("aside: %q, reported %v, want %q", kept, told, c.aside)
			}
			for i, name := range kept {
				if b, err := os.ReadFile(name); err != nil || string(b) != c.aside[i] {
					t.Errorf("aside: %q, %v", b, err)
				}
			}
			if err := commit.Pending(); !errors.Is(err, ErrNone) {
				t.Errorf("the journal remains: %v", err)
			}
		})
	}
}

// TestFilesMadeAtTheLastMoment: a file that the site makes between the look at a path and the rename stays, in each
// kind of step that renames.
func TestFilesMadeAtTheLastMoment(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string // the rename before which the site makes its file
		site     string // the file
		run      func(c *Commit, mtime int64) error
		want     error
		read     string // where the site's file must be
	}{
		"back after a rollback": {"s/out/0", "a", "a", func(c *Commit, mtime int64) error {
			return c.undoStep(Step{Kind: Out, Path: "a", Slot: "s/out/0", Size: -1})
		}, nil, "a"},
		"placed": {"s/new", "a", "a", func(c *Commit, mtime int64) error {
			return c.doStep(Step{Kind: Place, Path: "a", Slot: "s/new", Size: 3})
		}, fs.ErrExist, "a"},
		"another case": {"s/out/0", "a", "a", func(c *Commit, mtime int64) error { return c.doStep(Step{Kind: Recase, Path: "a", Slot: "s/out/0"}) }, fs.ErrExist, "a"},
		"out of the way": {"b", "s/out/1", "b", func(c *Commit, mtime int64) error {
			return c.doStep(Step{Kind: Out, Path: "b", Slot: "s/out/1", Size: 3, MTime: mtime})
		}, errEdited, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, p := range []string{"s/out/0", "s/new", "b"} {
				write(t, dir, p, "old")
			}
			info, err := os.Lstat(filepath.Join(dir, "b"))
			if err != nil {
				t.Fatal(err)
			}
			root, err := durable.Open(dir, durable.Options{Observer: observer(func(op durable.Op) error {
				if op.Kind == durable.Rename && op.Name == c.from && op.To == c.to {
					write(t, dir, c.site, "the site's")
				}
				return nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			commit := New(root, Options{Dir: "s", Stage: "s", Out: "s/out", Next: "s/next", Aside: "s/aside", OnAside: func(error) {}, OnDecline: func(error) {}})
			if err := c.run(commit, durable.Nanoseconds(info.ModTime())); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if b, err := os.ReadFile(filepath.Join(dir, c.read)); err != nil || string(b) != "the site's" {
				t.Errorf("the site's file: %q, %v", b, err)
			}
		})
	}
}

// A link that was replaced by a file is not moved out of the way: the file is the site's own.
func TestOutLeavesAFileInPlaceOfALink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "link", "a file now")
	root, err := durable.Open(dir, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c := New(root, Options{Dir: "s", Out: "s/out"})
	if err := c.doStep(Step{Kind: Out, Path: "link", Slot: "slot", Size: -1, Linked: true}); !errors.Is(err, errEdited) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "slot")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("moved: %v", err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
