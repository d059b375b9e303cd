package durable

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubTellsTheOuterObserver(t *testing.T) {
	dir := t.TempDir()
	var names []string
	r, err := Open(dir, Options{Observer: observe(func(op Op) { names = append(names, op.Kind.String()+" "+op.Name+" "+op.To) })})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.MkdirAll("a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := r.Sub("a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	names = nil
	f, err := s.Create("one", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename("one", "two"); err != nil {
		t.Fatal(err)
	}
	if err := s.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"create a/b/one ", "rename a/b/one a/b/two", "syncdir a/b "}, names); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "two")); err != nil {
		t.Error(err)
	}
	if _, err := r.Sub("a/none"); err == nil {
		t.Error("opened a folder that is not there")
	}
	if err := os.Symlink("b", filepath.Join(dir, "a", "link")); err != nil {
		t.Log("no links here:", err)
	} else if _, err := r.Sub("a/link"); err == nil {
		t.Error("followed a link")
	}
}

type observe func(Op)

func (o observe) Before(op Op) error { o(op); return nil }
