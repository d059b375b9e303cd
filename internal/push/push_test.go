package push

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// rig is a repository in a directory store with a source and a publisher's state.
type rig struct {
	t      *testing.T
	store  bucket.Store
	source string
	state  string
	key    ed25519.PrivateKey
	secret []byte
	events []Event
	memory *repo.Memory
}

func newRig(t *testing.T, secret []byte) *rig {
	t.Helper()
	store, err := bucket.Open(t.Context(), "file://"+t.TempDir(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, root, _ := ed25519.GenerateKey(rand.Reader)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := repo.Init(t.Context(), store, repo.InitOptions{Root: root, Release: key, Key: secret, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, store: store, source: t.TempDir(), state: t.TempDir(), key: key, secret: secret}
}

func (g *rig) open(store bucket.Store) *repo.Repo {
	g.t.Helper()
	r, err := repo.Open(g.t.Context(), store, repo.Options{Key: g.secret, Now: time.Now, Memory: g.memory})
	if err != nil {
		g.t.Fatal(err)
	}
	m := r.Memory()
	g.memory = &m
	return r
}

// push publishes the source; change may adjust the options.
func (g *rig) push(change func(*Options)) (*Result, error) {
	return g.pushTo(g.t.Context(), g.store, change)
}

func (g *rig) pushTo(ctx context.Context, store bucket.Store, change func(*Options)) (*Result, error) {
	g.t.Helper()
	state, err := durable.Open(g.state, durable.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	defer state.Close()
	g.events = nil
	o := Options{Channel: "package", Key: g.key, State: state, Now: time.Now, OnEvent: func(e Event) { g.events = append(g.events, e) }}
	if change != nil {
		change(&o)
	}
	return Run(ctx, g.open(store), g.source, o)
}

func (g *rig) mustPush(change func(*Options)) *Result {
	g.t.Helper()
	res, err := g.push(change)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

// write creates a file that is old enough for its times to be trusted.
func (g *rig) write(path string, b []byte) {
	g.t.Helper()
	full := filepath.Join(g.source, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(full, b, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// read returns all files of the head from the store and checks every chunk.
func (g *rig) read() map[string][]byte {
	g.t.Helper()
	ctx, r := g.t.Context(), g.open(g.store)
	head, err := r.Head(ctx, "package")
	if err != nil {
		g.t.Fatal(err)
	}
	rel, err := r.Release(ctx, "package", head.Number, head.Release)
	if err != nil {
		g.t.Fatal(err)
	}
	pages := repo.NewMemoryPages()
	if err := r.Manifests(pages).Load(ctx, r.Index, rel.PageIDs(), repo.FetchOptions{}); err != nil {
		g.t.Fatal(err)
	}
	out := map[string][]byte{}
	next := r.Manifests(pages).Entries(rel)
	for {
		e, err := next()
		if err != nil {
			g.t.Fatal(err)
		}
		if e == nil {
			return out
		}
		if e.Kind == manifest.File {
			out[e.Path] = g.content(r, e, pages)
			if digest.Of(out[e.Path]) != e.Digest {
				g.t.Fatalf("%s: content does not have the entry's digest", e.Path)
			}
		}
	}
}

func (g *rig) content(r *repo.Repo, e *manifest.Entry, pages repo.Pages) []byte {
	g.t.Helper()
	ctx := g.t.Context()
	var lists []digest.Digest
	for _, l := range e.Lists {
		lists = append(lists, l.ID)
	}
	if err := r.Manifests(pages).Load(ctx, r.Index, lists, repo.FetchOptions{}); err != nil {
		g.t.Fatal(err)
	}
	refs, err := r.Manifests(pages).Refs(e)
	if err != nil {
		g.t.Fatal(err)
	}
	var ids []digest.Digest
	for _, ref := range refs {
		if !ref.Hole() {
			ids = append(ids, ref.ID)
		}
	}
	chunks := repo.NewMemoryPages()
	if err := r.Manifests(chunks).Load(ctx, r.Index, ids, repo.FetchOptions{}); err != nil {
		g.t.Fatal(err)
	}
	var b bytes.Buffer
	for _, ref := range refs {
		c, _ := chunks.Load(ref.ID)
		if ref.Hole() {
			c = make([]byte, ref.Size)
		}
		b.Write(c)
	}
	return b.Bytes()
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// tree returns a source with every kind of file.
func tree() map[string][]byte {
	m := map[string][]byte{
		"empty":               {},
		"zero-small":          make([]byte, 1000),
		"zero-large":          make([]byte, 3<<20+17),
		"big.iso":             noise(1, 30<<20),
		"mixed.vhd":           slices.Concat(noise(2, 2<<20), make([]byte, 5<<20), noise(3, 1<<20)),
		"dir/a b.txt":         []byte("hello"),
		"dir/twin of a b.txt": []byte("hello"),
		"dir/sub/medium":      noise(4, 700_000),
		"Ünïcode/日本.inf":      []byte("x"),
	}
	for i := range 500 {
		m[fmt.Sprintf("drivers/%03d/file.sys", i)] = noise(uint64(100+i), i*37)
	}
	return m
}

func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chtimes(p, old, old)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPushHoldsEveryByte(t *testing.T) {
	for name, secret := range map[string][]byte{"plain": nil, "encrypted": noise(9, 32)} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, secret)
			want := tree()
			for p, b := range want {
				g.write(p, b)
			}
			res := g.mustPush(nil)
			if res.Number != 1 || res.Totals.Files != int64(len(want)) || res.Added != res.Totals.Files+res.Totals.Dirs {
				t.Errorf("result %+v", res)
			}
			got := g.read()
			if !maps.EqualFunc(want, got, bytes.Equal) {
				for p := range want {
					if !bytes.Equal(want[p], got[p]) {
						t.Errorf("%s: stored %d bytes differ from %d of the source", p, len(got[p]), len(want[p]))
					}
				}
				t.Fatal("stored content differs from the source")
			}
			// The next release: edits, a rename, a removal.
			edited := slices.Clone(want["big.iso"])
			edited[15<<20] ^= 1
			g.write("big.iso", edited)
			want["big.iso"] = edited
			if err := os.Rename(filepath.Join(g.source, "mixed.vhd"), filepath.Join(g.source, "moved.vhd")); err != nil {
				t.Fatal(err)
			}
			want["moved.vhd"] = want["mixed.vhd"]
			delete(want, "mixed.vhd")
			if err := os.Remove(filepath.Join(g.source, "empty")); err != nil {
				t.Fatal(err)
			}
			delete(want, "empty")
			res = g.mustPush(nil)
			if res.Number != 2 || res.Changed != 1 || res.Added != 1 || res.Removed != 2 || res.Sent > 2<<20 {
				t.Errorf("second result %+v", res)
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(g.read()))); diff != "" {
				t.Error(diff)
			}
			if got := g.read(); !bytes.Equal(got["big.iso"], edited) || !bytes.Equal(got["moved.vhd"], want["moved.vhd"]) {
				t.Error("the second release does not hold the edit")
			}
			if secret != nil {
				noNames(t, g)
			}
		})
	}
}

// noNames fails if the bucket contains a name or content in plain text.
func noNames(t *testing.T, g *rig) {
	t.Helper()
	err := g.store.List(t.Context(), "", func(i bucket.Info) error {
		body, _, err := g.store.Get(t.Context(), i.Key, 0, -1)
		if err != nil {
			return err
		}
		defer body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(body); err != nil {
			return err
		}
		for _, s := range []string{"package", "drivers", "file.sys", "hello"} {
			if strings.Contains(i.Key, s) || bytes.Contains(b.Bytes(), []byte(s)) {
				t.Errorf("%s tells %q", i.Key, s)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnchangedTreeIsNotRead(t *testing.T) {
	g := newRig(t, nil)
	for p, b := range tree() {
		g.write(p, b)
	}
	age(t, g.source)
	time.Sleep(racyWindow + 1100*time.Millisecond) // ctime cannot be set: wait until it is old enough
	first := g.mustPush(nil)
	counted := testbed.Count(g.store)
	res, err := g.pushTo(t.Context(), counted, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Unchanged || res.Read != 0 || res.Number != first.Number || res.Totals != first.Totals || res.Tree != first.Tree {
		t.Errorf("no-op: %+v", res)
	}
	if n := counted.Counts().Requests(); n > 5 {
		t.Errorf("no-op took %d requests, 5 are allowed", n)
	}
	// --rehash reads everything and still finds no change.
	res = g.mustPush(func(o *Options) { o.Rehash = true })
	if !res.Unchanged || res.Read != first.Read || res.Sent != 0 {
		t.Errorf("rehash: %+v", res)
	}
}

func TestLostCacheReadsButSendsNothing(t *testing.T) {
	g := newRig(t, nil)
	for p, b := range tree() {
		g.write(p, b)
	}
	g.mustPush(nil)
	g.state = t.TempDir()
	res := g.mustPush(nil)
	if !res.Unchanged || res.Sent != 0 || res.Read == 0 {
		t.Errorf("with the cache gone: %+v", res)
	}
}

func TestConcurrentPushesOneWins(t *testing.T) {
	g := newRig(t, nil)
	g.write("a", []byte("1"))
	g.mustPush(nil)
	errs := make([]error, 4)
	var rigs []*rig
	for i := range errs {
		r := &rig{t: t, store: g.store, source: t.TempDir(), state: t.TempDir(), key: g.key}
		r.write("a", []byte("1"))
		r.write("b", noise(uint64(i), 1<<20))
		rigs = append(rigs, r)
	}
	start := make(chan struct{})
	done := make(chan int)
	for i := range rigs {
		go func() {
			<-start
			_, errs[i] = rigs[i].push(nil)
			done <- i
		}()
	}
	close(start)
	for range rigs {
		<-done
	}
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, repo.ErrConflict):
			t.Error(err)
		}
	}
	if won == 0 {
		t.Fatalf("nobody won: %v", errs)
	}
	if len(g.read()) != 2 {
		t.Error("the head is not one of the pushed trees")
	}
}
