package pains

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/runs"
)

// syncthing #4608: programs see files of the new version beside files of the old.
//
// The test observes each change that a pull makes to the target. Before the commit, nothing outside nightferry's own
// folder may change. The commit may only rename, make and remove, and must not write content.
func TestPain06_NothingVisibleBeforeAllIsReady(t *testing.T) {
	w, site := twoReleases(t)
	kept := untouched(t, site)
	var mu sync.Mutex
	phase := ""
	var burst []string
	p, err := w.pull(site, func(o *apply.Options) {
		told := o.OnEvent
		o.OnEvent = func(e apply.Event) {
			told(e)
			if e.Kind != apply.PhaseEvent {
				return
			}
			if e.Phase == apply.PhaseSync {
				staged(t, site) // all of it, before anything is visible
			}
			if e.Phase == apply.PhaseCommit {
				kept()
			}
			mu.Lock()
			defer mu.Unlock()
			phase = e.Phase
		}
		o.Observer = observer(func(op durable.Op) error {
			mu.Lock()
			defer mu.Unlock()
			visible := outside(op.Name) || op.To != "" && outside(op.To)
			if !visible || op.Kind == durable.Probe || op.Kind == durable.SyncAll {
				return nil
			}
			if phase != apply.PhaseCommit {
				t.Errorf("%v %s %s in phase %q", op.Kind, op.Name, op.To, phase)
			}
			switch op.Kind {
			case durable.Rename, durable.Remove, durable.Mkdir, durable.Chmod, durable.Chtimes:
			default:
				t.Errorf("%v %s in the commit", op.Kind, op.Name)
			}
			burst = append(burst, op.Kind.String())
			return nil
		})
	})
	must(t, err)
	w.arrived(p, site)
	if len(burst) < 15 {
		t.Errorf("the commit made only %d visible changes: %v", len(burst), burst)
	}
}

func outside(name string) bool {
	return name != manifest.StateDir && !strings.HasPrefix(name, manifest.StateDir+"/")
}

// staged fails the test unless each file of the new release whose content is new to the site is complete in the staging
// folder.
func staged(t testing.TB, site string) {
	t.Helper()
	have := map[string]bool{}
	for _, what := range look(t, filepath.Join(site, manifest.StateDir, "stage")) {
		have[content(what)] = true
	}
	w := t.TempDir()
	lay(t, w, tree{"edit": newer()["edit"], "grow.img": newer()["grow.img"], "added": newer()["added"], "dir-to-file": newer()["dir-to-file"], "holes.img": newer()["holes.img"]})
	for p, what := range look(t, w) {
		if !have[content(what)] {
			t.Errorf("%s is not staged when the commit begins", p)
		}
	}
}

// content strips the time from a description by look.
func content(what string) string { return what[:strings.LastIndexByte(what, ',')+1] }

// A file in use delays the whole commit. When it is free, nothing is fetched again.
func TestPain06_LockedFile(t *testing.T) {
	w, site := twoReleases(t)
	kept := untouched(t, site)
	for _, file := range []string{"edit", "gone", "swap-a", "moved/from", "case.txt"} {
		p, err := w.pull(site, func(o *apply.Options) {
			o.Observer = observer(func(op durable.Op) error {
				if op.Kind == durable.Probe && op.Name == file {
					return durable.ErrLocked
				}
				return nil
			})
		})
		must(t, err)
		kept()
		told := p.files[file]
		for path, e := range p.files {
			if e.From == file {
				told = e // of a moved file, the new name
			}
			if e.Outcome != runs.FileLocked {
				t.Errorf("%s is locked, and %s was %s", file, path, e.Outcome)
			}
		}
		if p.Verdict != apply.Incomplete || told.Outcome != runs.FileLocked || !durable.IsLocked(told.Cause) {
			t.Errorf("%s is locked: verdict %q, outcome %v", file, p.Verdict, p.files)
		}
	}
	if p := w.arrive(site); p.BytesFetched != 0 {
		t.Errorf("%d bytes were fetched again", p.BytesFetched)
	}
}

// A run that dies during the commit leaves a mixed tree only until the restart. The restart rolls the commit forward
// from the disk alone, before it sends any request to the store.
func TestPain06_RolledForward(t *testing.T) {
	errDied := errors.New("died")
	mixed := 0
	for at := 1; ; at++ {
		w, site := twoReleases(t)
		was := look(t, site)
		n, died := 0, false
		var mu sync.Mutex
		phase := ""
		_, err := w.pull(site, func(o *apply.Options) {
			o.OnEvent = func(e apply.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == apply.PhaseEvent {
					phase = e.Phase
				}
			}
			o.Observer = observer(func(op durable.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if phase == apply.PhaseCommit && (outside(op.Name) || op.To != "" && outside(op.To)) {
					n++
				}
				if n < at {
					return nil
				}
				died = true
				return errDied
			})
		})
		if !died {
			must(t, err)
			break
		}
		whole(t, site, older(), newer())
		now := look(t, site)
		if len(differences(was, now)) > 0 && len(differences(look(t, w.src), now)) > 0 {
			mixed++
		}
		must(t, apply.Recover(t.Context(), site, apply.Options{Channel: channel, Now: time.Now}))
		same(t, look(t, w.src), look(t, site))
		if t.Failed() {
			t.Fatalf("died at visible change %d", at)
		}
		at += 2 // internal/crash takes them all
	}
	if mixed == 0 {
		t.Error("no run died with a mixed tree: nothing was rolled forward")
	}
}

func differences(a, b seen) (names []string) {
	for p := range a {
		if a[p] != b[p] {
			names = append(names, p)
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			names = append(names, p)
		}
	}
	return names
}

// twoReleases returns a site with the older release and a repository in which the newer is published.
func twoReleases(t testing.TB) (*world, string) {
	t.Helper()
	w := newWorld(t, plan{})
	lay(t, w.src, older())
	w.mustPush(nil)
	site := w.site()
	w.arrive(site)
	lay(t, w.src, newer())
	w.mustPush(func(o *push.Options) { o.AllowDeletes = true })
	return w, site
}
