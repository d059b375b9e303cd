package core_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/runs"
)

// held runs an agent of osaka until it holds release 1, and stops it. It returns its state directory and its target.
func (w *world) held() (state, target string) {
	w.t.Helper()
	w.write("a.txt", "one")
	w.write("d/b.txt", "one")
	w.publish("package")
	state, err := w.enter("osaka", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	stop := w.agent(state, nil)
	w.untilCurrent(1, "osaka")
	stop()
	return state, w.folder("osaka", "package")
}

// forgetAgent takes the agent's memory: its whole state, or the files that enroll --replace sets aside.
func (w *world) forgetAgent(state string, all bool) {
	w.t.Helper()
	if all {
		if err := os.RemoveAll(state); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := w.enter("osaka", func(o *agent.EnrolOptions) { o.Replace = !all }); err != nil {
		w.t.Fatal(err)
	}
}

// untilEmptied waits for a run that finds the target empty, and checks that nothing was written to it or claimed of it.
func (w *world) untilEmptied(target string) {
	w.t.Helper()
	w.until("a run that refuses", func() bool {
		list, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: "osaka", State: runs.Emptied})
		return err == nil && len(list) > 0
	})
	if list, err := os.ReadDir(target); err == nil && len(list) > 0 {
		w.t.Errorf("the mount point holds %v", list)
	}
	s, err := w.core.Query.Sites(w.t.Context(), fleet.Scope{Site: "osaka", Channel: "package"})
	if err != nil || s[0].Channels[0].State == "current" || !s[0].Channels[0].Verified.IsZero() {
		w.t.Errorf("%+v, %v", s, err)
	}
	if !slices.Contains(w.openKeys(), "target-emptied/package") {
		w.t.Errorf("open are %q", w.openKeys())
	}
}

// TestForgottenTargetIsNotFilled: an agent that has lost its own state knows from the Core that its target held a
// release. The mount point of an absent volume is not filled, and each remedy that the incident names works.
func TestForgottenTargetIsNotFilled(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]bool{"state lost": true, "enroll --replace": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			state, target := w.held()
			if err := errors.Join(os.Rename(target, target+".unmounted"), os.Mkdir(target, 0o755)); err != nil {
				t.Fatal(err)
			}
			w.forgetAgent(state, all)
			w.agent(state, nil)
			w.untilEmptied(target)
			scope := fleet.Scope{Site: "osaka", Channel: "package"}
			if all { // the volume is mounted again
				if err := errors.Join(os.Remove(target), os.Rename(target+".unmounted", target)); err != nil {
					t.Fatal(err)
				}
				if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: scope}); err != nil {
					t.Fatal(err)
				}
			} else if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: scope, Adopt: true, Now: true}); err != nil {
				t.Fatal(err)
			}
			w.untilCurrent(1, "osaka")
			w.until("the end of the incidents", func() bool { return len(w.openKeys()) == 0 })
		})
	}
}

// TestNewServerIsFilled: an empty target is filled without consent on another machine, and where the configuration has
// moved the target.
func TestNewServerIsFilled(t *testing.T) {
	t.Parallel()
	t.Run("another machine", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		state, target := w.held()
		if err := os.RemoveAll(target); err != nil {
			t.Fatal(err)
		}
		w.forgetAgent(state, true)
		w.agent(state, func(o *agent.Options) { o.Machine = bytes.Repeat([]byte{7}, 16) })
		w.write("a.txt", "two")
		w.publish("package")
		w.untilCurrent(2, "osaka")
		if open := w.openKeys(); len(open) > 0 {
			t.Errorf("open are %q", open)
		}
	})
	t.Run("a moved target", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		state, target := w.held()
		w.forgetAgent(state, true)
		f := w.apart()
		for i := range f.Sites {
			if f.Sites[i].Name == "osaka" {
				f.Sites[i].Placements[0].Target = filepath.ToSlash(target + "-moved")
			}
		}
		if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
		w.agent(state, nil)
		w.untilSame(target + "-moved")
		w.untilCurrent(1, "osaka")
	})
}

// TestForgottenOwnership: a target that was restored without its state folder, at an agent that has lost its state, is
// not verified while it holds files of unknown owner. Check and run agree.
func TestForgottenOwnership(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	state, target := w.held()
	if err := errors.Join(os.RemoveAll(filepath.Join(target, ".nightferry")), os.WriteFile(filepath.Join(target, "older"), []byte("of an earlier release"), 0o644)); err != nil {
		t.Fatal(err)
	}
	w.forgetAgent(state, true)
	w.agent(state, nil)
	scope := fleet.Scope{Site: "osaka", Channel: "package"}
	lost := func() {
		t.Helper()
		w.until("ownership lost", func() bool {
			s, err := w.core.Query.Sites(t.Context(), scope)
			ch := s[0].Channels[0]
			return err == nil && ch.State != "current" && ch.Why == "ownership lost" && strings.Contains(ch.Reasons[0].Cause, "ownership lost") && strings.Contains(ch.Reasons[0].Remedy, "--adopt")
		})
		places, err := w.core.Query.Where(t.Context(), "package", "a.txt")
		if i := slices.IndexFunc(places, func(p query.Place) bool { return p.Site == "osaka" }); err != nil || places[i].Current || !places[i].Verified.IsZero() {
			t.Errorf("where: %+v, %v", places, err)
		}
	}
	lost()
	if _, err := w.core.Orders.Verify(t.Context(), core.VerifyRequest{Scope: scope, Full: true}); err != nil {
		t.Fatal(err)
	}
	w.until("the check", func() bool {
		list, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka"})
		return err == nil && slices.ContainsFunc(list, func(r ledger.Run) bool { return r.Trigger == "verify" && !r.Finished.IsZero() })
	})
	lost()
	if _, err := os.Stat(filepath.Join(target, "older")); err != nil {
		t.Error(err)
	}
	if _, err := w.core.Orders.Sync(t.Context(), core.SyncRequest{Scope: scope, Adopt: true, Now: true}); err != nil {
		t.Fatal(err)
	}
	w.untilCurrent(1, "osaka")
}
