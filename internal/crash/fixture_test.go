package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// fixture is a repository with an old and a new release of one folder.
type fixture struct {
	seed      uint64
	secret    []byte
	old, now  tree
	source    string // contains the new release
	store     string // contains both releases
	state     string // publisher's state after both
	oldStore  string // copy of store after the old release
	oldState  string
	work      string // parent of the folders that the tests create
	oldLook   look
	nowLook   look
	wholePull report // report of an undisturbed pull from old to new
	wholePush report
}

// clock is ahead of the files' times, so that the stat cache trusts them. Fixtures are created and used within seconds.
func clock() time.Time { return time.Now().Add(10 * time.Second) }

// newFixture creates a fixture in a folder of the test. Fixtures with an odd seed are encrypted.
func newFixture(t *testing.T, seed uint64, image int) *fixture {
	t.Helper()
	base := scratch(t)
	at := func(name string) string { return filepath.Join(base, name) }
	f := &fixture{seed: seed, source: at("source"), store: at("store"), state: at("state"), oldStore: at("old-store"), oldState: at("old-state"), work: at("work")}
	if seed%2 == 1 {
		f.secret = random(generator(seed^0xff00), 32)
	}
	f.old, f.now = releases(seed, image)
	f.oldLook, f.nowLook = f.old.look(), f.now.look()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{f.state, f.work} {
		check(os.MkdirAll(dir, 0o755))
	}
	store, err := bucket.Open(t.Context(), testbed.FileURL(f.store), bucket.Options{Create: true})
	check(err)
	defer bucket.Close(store)
	_, err = repo.Init(t.Context(), store, repo.InitOptions{Key: f.secret, Root: rootKey(), Release: releaseKey(), Now: time.Now()})
	check(err)
	check(lay(f.source, f.old))
	_, err = f.pushOrder(f.store, f.state, nil).push(t.Context(), store, nil)
	check(err)
	check(copyTree(f.store, f.oldStore, true))
	check(copyTree(f.state, f.oldState, false))
	check(morph(f.source, f.old, f.now))
	_, err = f.pushOrder(f.store, f.state, nil).push(t.Context(), store, nil)
	check(err)
	return f
}

// scratch returns a folder of the test, in memory if there is room. A kill loses nothing in the kernel, and power is
// cut in the model only. A real disk would prove no more, and syncing it would take minutes.
func scratch(t *testing.T) string {
	t.Helper()
	const memory, room = "/dev/shm", 2 << 30
	root, err := durable.Open(memory, durable.Options{})
	if err != nil {
		return t.TempDir()
	}
	defer root.Close()
	if free, err := root.Free(); err != nil || free < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "nightferry-crash-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// morph changes only those files that differ, so that the stat cache stays valid for the others.
func morph(dir string, old, now tree) error {
	var gone []string
	for p, n := range old {
		if m, ok := now[p]; !ok || n.dir != m.dir {
			gone = append(gone, p)
		}
	}
	slices.Sort(gone)
	for _, p := range slices.Backward(gone) {
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(p))); err != nil {
			return err
		}
	}
	rest := tree{}
	for p, m := range now {
		if n, ok := old[p]; !ok || n.dir != m.dir || string(n.data) != string(m.data) || n.mode != m.mode || !n.mtime.Equal(m.mtime) {
			rest[p] = m
		}
	}
	return add(dir, rest)
}

func (f *fixture) pushOrder(store, state string, kill *point) order {
	return order{Verb: "push", Store: store, Source: f.source, State: state, Connections: 2, Secret: f.secret, Kill: kill}
}

func (f *fixture) pullOrder(dst string, kill *point) order {
	return order{Verb: "pull", Store: f.store, Target: dst, Connections: 1 + int(f.seed%3), Secret: f.secret, Kill: kill}
}

// pull pulls a release in this process; 0 is the head.
func (f *fixture) pull(t *testing.T, store bucket.Store, dst string, release trust.ReleaseNumber, obs durable.Observer) (*apply.Result, error) {
	o := f.pullOrder(dst, nil)
	o.Release = release
	res, err := apply.Run(t.Context(), store, dst, o.apply(obs))
	if err == nil && res.Verdict != apply.Verified {
		err = fmt.Errorf("the pull ended %s", res.Verdict)
	}
	return res, err
}

// open opens a store of the fixture for reading and writing in this process.
func (f *fixture) open(t *testing.T, dir string) (bucket.Store, error) {
	return bucket.Open(t.Context(), testbed.FileURL(dir), bucket.Options{})
}

// fsck reads the whole repository and fails on any damage.
func (f *fixture) fsck(t *testing.T, store bucket.Store) (err error) {
	dir, err := os.MkdirTemp(f.work, "fsck-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return fsck(t, store, f.secret, dir)
}

func fsck(t *testing.T, store bucket.Store, secret []byte, copies string) error {
	r, err := repo.Open(t.Context(), store, repo.Options{Key: secret, Now: time.Now})
	if err != nil {
		return err
	}
	root, err := durable.Open(copies, durable.Options{})
	if err != nil {
		return err
	}
	defer root.Close()
	var bad error
	rep, err := collect.Fsck(t.Context(), r, r.Segments(root), collect.FsckOptions{ReadData: true}, func(x collect.Finding) {
		if x.Severity == collect.Damage {
			bad = errors.Join(bad, errors.New(x.String()))
		}
	})
	if err == nil && rep.Damage != 0 {
		err = fmt.Errorf("fsck finds %d damages: %w", rep.Damage, bad)
	}
	return err
}

// inParallel runs n jobs, two at a time, and stops at the first error.
func inParallel(t *testing.T, n int, job func(i int) error) {
	t.Helper()
	next, failed := 0, false
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				mu.Lock()
				i, stop := next, failed
				next++
				mu.Unlock()
				if i >= n || stop {
					return
				}
				if err := job(i); err != nil {
					t.Error(err)
					mu.Lock()
					failed = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// fresh creates an empty folder in f.work and returns a function that removes it.
func (f *fixture) fresh(name string) (dir string, done func() error, err error) {
	dir, err = os.MkdirTemp(f.work, name+"-")
	return dir, func() error { return removeAll(dir) }, err
}

// removeAll removes a tree, including folders that a killed child left without write permission.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
