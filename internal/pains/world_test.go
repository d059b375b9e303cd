package pains

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

const channel = "package"

// world is one repository in a real store, the Core that publishes to it, and everything needed to read it. src is the
// Core's folder; a site may be any folder.
type world struct {
	t      testing.TB
	store  bucket.Store // without any proxy
	url    string
	bucket s3test.Bucket // if the store is S3
	src    string
	state  string // the Core's caches
	key    ed25519.PrivateKey
	root   ed25519.PrivateKey
	secret []byte // repository key, nil in a plain repository
	memory *repo.Memory
	ahead  time.Duration // of the Core's clock: files look older to it by this
}

// plan holds the options of a world.
type plan struct {
	s3     bool
	secret []byte
	params chunk.Params
}

// smallChunks gives files of a few 100 KB all structures of large ones, including chunk-list pages.
var smallChunks = chunk.Params{Algorithm: chunk.Algorithm, Min: 2 << 10, Avg: 8 << 10, Max: 32 << 10}

func newWorld(t testing.TB, p plan) *world {
	t.Helper()
	base := t.TempDir()
	w := &world{t: t, src: filepath.Join(base, "src"), state: filepath.Join(base, "state"), secret: p.secret,
		key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)), root: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))}
	for _, d := range []string{w.src, w.state} {
		must(t, os.Mkdir(d, 0o755))
	}
	if p.s3 {
		w.bucket = s3test.S3(t)
		w.url, w.store = w.bucket.URL(""), w.bucket.Open(t)
	} else {
		w.url = testbed.FileURL(filepath.Join(base, "store"))
		w.store = testbed.OpenStore(t, w.url, bucket.Options{Create: true})
	}
	_, err := repo.Init(t.Context(), w.store, repo.InitOptions{Root: w.root, Release: w.key, Key: p.secret, Params: p.params, Now: time.Now()})
	must(t, err)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) open(ctx context.Context, s bucket.Store) (*repo.Repo, error) {
	r, err := repo.Open(ctx, s, repo.Options{Key: w.secret, Now: time.Now, Memory: w.memory})
	if err != nil {
		return nil, err
	}
	m := r.Memory()
	w.memory = &m
	return r, nil
}

// pushed is the result of a push with its events.
type pushed struct {
	*push.Result
	events []push.Event
}

func (w *world) push(change func(*push.Options)) (pushed, error) {
	w.t.Helper()
	return w.pushTo(w.store, change)
}

func (w *world) pushTo(s bucket.Store, change func(*push.Options)) (out pushed, err error) {
	w.t.Helper()
	ctx := w.t.Context()
	r, err := w.open(ctx, s)
	if err != nil {
		return out, err
	}
	state, err := durable.Open(w.state, durable.Options{})
	must(w.t, err)
	defer state.Close()
	o := push.Options{Channel: channel, Key: w.key, State: state, Now: func() time.Time { return time.Now().Add(w.ahead) },
		OnEvent: func(e push.Event) { out.events = append(out.events, e) }}
	if change != nil {
		change(&o)
	}
	out.Result, err = push.Run(ctx, r, w.src, o)
	m := r.Memory()
	w.memory = &m
	return out, err
}

func (w *world) mustPush(change func(*push.Options)) pushed {
	w.t.Helper()
	out, err := w.push(change)
	must(w.t, err)
	return out
}

// pulled is the result of a pull with its events.
type pulled struct {
	*apply.Result
	files   map[string]apply.Event
	retries []error
}

func (w *world) pull(dir string, change func(*apply.Options)) (pulled, error) {
	w.t.Helper()
	return w.pullFrom(w.store, dir, change)
}

func (w *world) pullFrom(s bucket.Store, dir string, change func(*apply.Options)) (out pulled, err error) {
	w.t.Helper()
	out.files = map[string]apply.Event{}
	o := apply.Options{Channel: channel, Key: w.secret, Now: time.Now, OnEvent: func(e apply.Event) {
		switch e.Kind {
		case apply.FileEvent:
			out.files[e.Path] = e
		case apply.RetryEvent:
			out.retries = append(out.retries, e.Cause)
		}
	}}
	if change != nil {
		change(&o)
	}
	out.Result, err = apply.Run(w.t.Context(), s, dir, o)
	if out.Result == nil { // the folder could not even be opened
		out.Result = &apply.Result{Verdict: apply.Incomplete}
	}
	return out, err
}

// arrive pulls, and checks by an independent read that dir equals the Core's folder.
func (w *world) arrive(dir string) pulled {
	w.t.Helper()
	out, err := w.pull(dir, nil)
	must(w.t, err)
	w.arrived(out, dir)
	return out
}

func (w *world) arrived(out pulled, dir string) {
	w.t.Helper()
	if out.Verdict != apply.Verified {
		w.t.Errorf("verdict %q, want verified: %v", out.Verdict, out.files)
	}
	same(w.t, look(w.t, w.src), look(w.t, dir))
}

// site returns a folder that does not exist yet.
func (w *world) site() string { return filepath.Join(w.t.TempDir(), "site") }

// fsck returns the findings of a full check of the store.
func (w *world) fsck() (found []collect.Finding, err error) {
	w.t.Helper()
	return w.check(collect.FsckOptions{ReadData: true})
}

// check returns the damage that an fsck finds.
func (w *world) check(o collect.FsckOptions) (found []collect.Finding, err error) {
	w.t.Helper()
	ctx := w.t.Context()
	// A check needs no memory of earlier runs: it judges the store alone.
	r, err := repo.Open(ctx, w.store, repo.Options{Key: w.secret, Now: time.Now})
	if err != nil {
		return nil, err
	}
	dir, err := durable.Open(w.t.TempDir(), durable.Options{})
	must(w.t, err)
	defer dir.Close()
	_, err = collect.Fsck(ctx, r, r.Segments(dir), o, func(f collect.Finding) {
		if f.Severity == collect.Damage {
			found = append(found, f)
		}
	})
	return found, err
}

// tree is a folder's content; a path that ends in a slash is a folder.
type tree map[string][]byte

// noise returns n incompressible bytes that differ for each seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(b)
	return b
}

var longAgo = time.Date(2023, 4, 5, 6, 7, 8, 123456700, time.UTC)

// lay replaces the content of dir by the tree.
func lay(t testing.TB, dir string, tr tree) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	for p, b := range tr {
		put(t, dir, p, b)
	}
}

// put writes one file or folder.
func put(t testing.TB, dir, p string, b []byte) {
	t.Helper()
	name := filepath.Join(dir, filepath.FromSlash(p))
	if strings.HasSuffix(p, "/") {
		must(t, os.MkdirAll(name, 0o755))
		return
	}
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, b, 0o644))
	must(t, os.Chtimes(name, longAgo, longAgo))
}

// seen describes one path: for a file the SHA-256 of its bytes, its size and its time.
type seen map[string]string

// look reads a folder without nightferry code, and leaves out nightferry's own files.
func look(t testing.TB, dir string) seen {
	t.Helper()
	out := seen{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case rel == manifest.StateDir:
			return fs.SkipDir
		case d.IsDir():
			out[rel] = "folder"
			return nil
		case !d.Type().IsRegular():
			out[rel] = d.Type().String()
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		// FAT and NTFS store times with less precision than ext4.
		out[rel] = fmt.Sprintf("%s %d bytes, %s", hex.EncodeToString(sum[:]), len(b), info.ModTime().UTC().Truncate(100*time.Nanosecond).Format(time.RFC3339Nano))
		return nil
	})
	if errIsAbsent(err) {
		return out
	}
	must(t, err)
	return out
}

func errIsAbsent(err error) bool { return err != nil && os.IsNotExist(err) }

func same(t testing.TB, want, have seen) {
	t.Helper()
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("the folder is not what it should be (-want +have):\n%s", d)
	}
}

// untouched reads dir now, and returns a check that it is still the same.
func untouched(t testing.TB, dir string) func() {
	t.Helper()
	before := look(t, dir)
	return func() {
		t.Helper()
		same(t, before, look(t, dir))
	}
}

// copyTree copies a folder as a backup program would: bytes, times and modes, but not the inodes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(to, rel), info.Mode().Perm()); err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, rel), info.ModTime(), info.ModTime())
	}))
}

// says fails the test unless err contains all the words.
func says(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}
