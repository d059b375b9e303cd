package collect

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// storeClock advances by tick with every put, and when a test advances it.
type storeClock struct {
	mu   sync.Mutex
	now  time.Time
	tick time.Duration
}

func (c *storeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *storeClock) advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// clocked is a store that uses the test's clock.
type clocked struct {
	s        bucket.Store
	c        *storeClock
	mu       sync.Mutex
	modified map[string]time.Time
}

func (s *clocked) info(i bucket.Info) bucket.Info {
	i.Date = s.c.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.modified[i.Key]; ok {
		i.Modified = m
	}
	return i
}

func (s *clocked) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, i, err := s.s.Get(ctx, key, off, n)
	if err != nil {
		return r, i, err
	}
	return r, s.info(i), nil
}

func (s *clocked) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	// Set the time before the object exists: no reader may see a new object
	// with the time of an old one.
	now := s.c.advance(s.c.tick)
	s.mu.Lock()
	was, before := s.modified[key]
	s.modified[key] = now
	s.mu.Unlock()
	i, err := s.s.Put(ctx, key, b, c)
	if err == nil {
		return s.info(i), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.modified[key].Equal(now) { // no other put since
		if s.modified[key] = was; !before {
			delete(s.modified, key)
		}
	}
	return i, err
}

func (s *clocked) Delete(ctx context.Context, key string) error {
	return s.s.Delete(ctx, key)
}

func (s *clocked) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	return s.s.List(ctx, prefix, func(i bucket.Info) error { return fn(s.info(i)) })
}

// lab is a repository with a source folder beside it.
type lab struct {
	t     testing.TB
	base  bucket.Store // beneath the clock
	store *clocked
	clock *storeClock
	root  ed25519.PrivateKey
	key   ed25519.PrivateKey
	seal  []byte
	src   string
	state string
	grace time.Duration
}

const labChannel = "package"

func newLab(t testing.TB, base bucket.Store, seal []byte) *lab {
	t.Helper()
	if base == nil {
		base = testbed.OpenStore(t, testbed.FileURL(t.TempDir()), bucket.Options{})
	}
	c := &storeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	seed := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }
	l := &lab{t: t, base: base, clock: c, store: &clocked{s: base, c: c, modified: map[string]time.Time{}},
		root: seed(1), key: seed(2), seal: seal, src: t.TempDir(), state: t.TempDir(), grace: time.Hour}
	if _, err := repo.Init(t.Context(), l.store, repo.InitOptions{Key: seal, Root: l.root, Release: l.key, Grace: l.grace, Now: c.Now()}); err != nil {
		t.Fatal(err)
	}
	return l
}

// open opens the repository in a store, the lab's own when nil.
func (l *lab) open(s bucket.Store) (*repo.Repo, error) {
	if s == nil {
		s = l.store
	}
	return repo.Open(l.t.Context(), s, repo.Options{Key: l.seal, Now: l.clock.Now})
}

func (l *lab) dir(name string) *durable.Root {
	l.t.Helper()
	d, err := durable.Open(filepath.Join(l.state, name), durable.Options{Create: true})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = d.Close() })
	return d
}

// push publishes the source from the machine with the given name.
func (l *lab) push(s bucket.Store, machine, channel string) (*push.Result, error) {
	r, err := l.open(s)
	if err != nil {
		return nil, err
	}
	return push.Run(l.t.Context(), r, l.src, push.Options{Channel: channel, Key: l.key, State: l.dir(machine), Now: l.clock.Now, AllowDeletes: true, AllowEmpty: true})
}

func (l *lab) mustPush() *push.Result {
	l.t.Helper()
	res, err := l.push(nil, "core", labChannel)
	if err != nil {
		l.t.Fatal(err)
	}
	return res
}

func (l *lab) gc(s bucket.Store, o Options) (*Report, error) {
	r, err := l.open(s)
	if err != nil {
		return nil, err
	}
	return GC(l.t.Context(), r, r.Segments(l.dir("gc")), o)
}

func (l *lab) mustGC(o Options) *Report {
	l.t.Helper()
	rep, err := l.gc(nil, o)
	if err != nil {
		l.t.Fatal(err)
	}
	return rep
}

func (l *lab) fsck(o FsckOptions) (*FsckReport, []Finding) {
	l.t.Helper()
	r, err := l.open(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	var all []Finding
	rep, err := Fsck(l.t.Context(), r, r.Segments(l.dir("fsck")), o, func(f Finding) { all = append(all, f) })
	if err != nil {
		l.t.Fatal(err)
	}
	return rep, all
}

// healthy fails the test unless fsck, reading everything, finds no damage.
func (l *lab) healthy() *FsckReport {
	l.t.Helper()
	rep, all := l.fsck(FsckOptions{ReadData: true})
	for _, f := range all {
		if f.Severity == Damage {
			l.t.Errorf("fsck: %s", f)
		}
	}
	if rep.Damage > 0 {
		l.t.FailNow()
	}
	return rep
}

// write makes a file of size bytes that are derived from seed.
func (l *lab) write(name string, size int, seed uint64) {
	l.t.Helper()
	p := filepath.Join(l.src, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(p, noise(size, seed), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) remove(name string) {
	l.t.Helper()
	if err := os.Remove(filepath.Join(l.src, filepath.FromSlash(name))); err != nil {
		l.t.Fatal(err)
	}
}

func noise(size int, seed uint64) []byte {
	var key [32]byte
	copy(key[:], fmt.Sprint(seed))
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}
