package push

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReviewed: what a dry run has shown is published. A source that has changed since is not, and the head stays.
func TestReviewed(t *testing.T) {
	g := newRig(t, nil)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(g.source, "a.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	shown := g.mustPush(func(o *Options) { o.DryRun = true })
	write("another")
	_, err := g.push(func(o *Options) { o.Reviewed = shown.Tree })
	var guard *GuardError
	if !errors.As(err, &guard) || guard.Guard != "reviewed" {
		t.Fatalf("a source that nobody has reviewed: %v", err)
	}
	shown = g.mustPush(func(o *Options) { o.DryRun = true })
	if shown.Unchanged || shown.Number != 1 {
		t.Errorf("something was published: %+v", shown)
	}
	if res := g.mustPush(func(o *Options) { o.Reviewed = shown.Tree }); res.Number != 1 || res.Tree != shown.Tree {
		t.Errorf("%+v", res)
	}
}
