package core_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/fleet"
)

// TestCopiedStateByTurns: a copy of a server whose agent never runs while the other does is found out when it connects,
// and so is a state that was restored from a backup. Restarts of the agent and of the Core are no copies.
func TestCopiedStateByTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	state, err := w.enter("osaka", nil)
	if err != nil {
		t.Fatal(err)
	}
	contested := func() string {
		t.Helper()
		sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
		if err != nil || len(sites) != 1 {
			t.Fatal(sites, err)
		}
		return sites[0].Contested
	}
	turn := func(state string) {
		t.Helper()
		before := time.Now()
		stop := w.agent(state, nil)
		w.until("the agent in "+filepath.Base(state), func() bool {
			sites, err := w.core.Query.Sites(t.Context(), fleet.Scope{Site: "osaka"})
			if err != nil || len(sites) != 1 {
				t.Fatal(sites, err)
			}
			return sites[0].Connected && sites[0].Seen.After(before)
		})
		stop()
		w.until("the agent to have left", func() bool { return !w.seen("osaka") }) // else its last message counts as one of the next turn
	}
	for range 2 {
		turn(state)
	}
	w.restart()
	w.agent(state, nil)() // it may not reach the Core
	turn(state)
	if text := contested(); text != "" {
		t.Fatalf("a restart counts as a copy: %s", text)
	}
	copied := filepath.Join(filepath.Dir(state), "copy")
	if err := os.CopyFS(copied, os.DirFS(state)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(copied, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(state, strings.TrimPrefix(p, copied)))
		if err != nil {
			return err
		}
		return os.Chmod(p, info.Mode().Perm())
	}); err != nil {
		t.Fatal(err)
	}
	turn(copied) // which of the two is the copy, nobody knows yet
	if text := contested(); text != "" {
		t.Fatalf("the only one that ran counts as a copy: %s", text)
	}
	turn(state)
	if text := contested(); !strings.Contains(text, "a clone, or its state was restored from a backup") {
		t.Fatalf("%q", text)
	}
	w.restart()
	if contested() == "" {
		t.Error("the Core has forgotten it")
	}
	if err := w.core.Enrolment.Confirm(t.Context(), "osaka", "the copy is deleted"); err != nil {
		t.Fatal(err)
	}
	turn(state)
	turn(state)
	if text := contested(); text != "" {
		t.Errorf("the machine that is left counts as a copy: %s", text)
	}
	turn(copied)
	if contested() == "" {
		t.Error("the copy is taken for the machine that is left")
	}
}
