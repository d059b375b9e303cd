package apply

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
)

// press publishes folders using only the format packages, so that the tests of apply do not depend on publish.
type press struct {
	t     testing.TB
	dir   string // of the store
	store bucket.Store
	root  ed25519.PrivateKey
	key   ed25519.PrivateKey
	seal  []byte // repository key
	now   time.Time

	unportable bool // releases may hold names that Windows cannot
}

const channel = "package"

func newPress(t testing.TB, sealKey []byte) *press {
	t.Helper()
	dir := t.TempDir()
	store, err := bucket.Open(t.Context(), storeURL(dir), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := store.(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	seed := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }
	p := &press{t: t, dir: dir, store: store, root: seed(1), key: seed(2), seal: sealKey, now: time.Now()}
	if _, err := repo.Init(t.Context(), store, repo.InitOptions{Key: sealKey, Root: p.root, Release: p.key, Now: p.now}); err != nil {
		t.Fatal(err)
	}
	return p
}

func storeURL(dir string) string {
	if runtime.GOOS == "windows" {
		return "file:///" + filepath.ToSlash(dir)
	}
	return "file://" + dir
}

func (p *press) open() *repo.Repo {
	p.t.Helper()
	r, err := repo.Open(p.t.Context(), p.store, repo.Options{Key: p.seal, Now: func() time.Time { return p.now }})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// publish makes a release of a folder and returns it.
func (p *press) publish(src string) *repo.Release {
	p.t.Helper()
	rel, err := p.tryPublish(src)
	if err != nil {
		p.t.Fatal(err)
	}
	return rel
}

// packer cuts chunks into blocks and packs.
type packer struct {
	r     *repo.Repo
	known map[digest.Digest]bool
	batch repo.Batch
	w     *pack.Writer
	raw   []byte
	refs  []chunk.Ref
}

func (k *packer) add(ctx context.Context, b []byte) (digest.Digest, error) {
	id := k.r.Keys().ChunkID(b)
	if k.known[id] {
		return id, nil
	}
	k.known[id] = true
	if len(k.raw)+len(b) > pack.MaxBlock {
		if err := k.block(ctx); err != nil {
			return id, err
		}
	}
	k.raw = append(k.raw, b...)
	k.refs = append(k.refs, chunk.Ref{ID: id, Size: int64(len(b))})
	return id, nil
}

func (k *packer) block(ctx context.Context) error {
	if len(k.raw) == 0 {
		return nil
	}
	enc, err := pack.NewEncoder()
	if err != nil {
		return err
	}
	if k.w == nil {
		if k.w, err = pack.NewWriter(k.r.Keys(), nil); err != nil {
			return err
		}
	}
	k.w.Add(pack.Compress(enc, nil, k.raw, k.refs))
	k.raw, k.refs = nil, nil
	if k.w.Full() {
		return k.flush(ctx)
	}
	return nil
}

func (k *packer) flush(ctx context.Context) error {
	if k.w == nil {
		return nil
	}
	f, err := k.w.Finish()
	if err != nil {
		return err
	}
	k.w = nil
	if err := k.r.PutPack(ctx, f); err != nil {
		return err
	}
	k.batch.Add(f)
	return nil
}

func (p *press) tryPublish(src string) (*repo.Release, error) {
	ctx := p.t.Context()
	r := p.open()
	k := &packer{r: r, known: map[digest.Digest]bool{}}
	segs, err := durable.Open(filepath.Join(p.dir, "..", filepath.Base(p.dir)+"-segments"), durable.Options{Create: true})
	if err != nil {
		return nil, err
	}
	defer func() { try(p.t, segs.Close()) }()
	x, err := r.Index(ctx)
	if err != nil {
		return nil, err
	}
	started := x.Date()
	known, err := r.Segments(segs).Known(ctx, x)
	if err != nil {
		return nil, err
	}
	defer func() { try(p.t, known.Close()) }()
	split, err := chunk.NewSplitter(r.Params())
	if err != nil {
		return nil, err
	}
	add := func(b []byte) (digest.Digest, error) {
		id := r.Keys().ChunkID(b)
		if ok, err := known.Has(id); ok || err != nil {
			return id, err
		}
		return k.add(ctx, b)
	}
	rel := manifest.Release{Channel: channel, Created: p.now.Unix(), Portable: !p.unportable}
	check := manifest.Checker{Portable: !p.unportable}
	pages := manifest.PageBuilder{Emit: func(page []byte, first string, entries int) error {
		id, err := add(page)
		rel.Pages = append(rel.Pages, manifest.PageRef{ID: id, First: first, Entries: int64(entries)})
		return err
	}}
	err = scan.Walk(ctx, src, scan.WalkOptions{}, func(it scan.Item) error {
		e := manifest.Entry{Path: it.Path, Mode: it.Stat.Mode & 0o777}
		if it.Kind == scan.Dir {
			e.Kind = manifest.Dir
		} else {
			f, err := os.Open(filepath.Join(src, filepath.FromSlash(it.Path)))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := fileEntry(&e, f, it, r, split, add); err != nil {
				return err
			}
		}
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		if err := check.Add(&e); err != nil {
			return err
		}
		return pages.Add(e)
	})
	if err := errors.Join(err, pages.Finish(), k.block(ctx), k.flush(ctx)); err != nil {
		return nil, err
	}
	if k.batch.Records() > 0 {
		if err := r.Segments(segs).AddSegment(ctx, &k.batch); err != nil {
			return nil, err
		}
	}
	rel.Totals, rel.Tree = check.Sum()
	head, err := r.Head(ctx, channel)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r.Publisher(p.key).Publish(ctx, repo.Commit{Release: rel, Parent: head, Started: started})
}

func fileEntry(e *manifest.Entry, f *os.File, it scan.Item, r *repo.Repo, split *chunk.Splitter, add func([]byte) (digest.Digest, error)) error {
	e.Size, e.MTime = it.Stat.Size, it.Stat.MTime
	sum, err := hashReader(context.Background(), f, e.Size, make([]byte, min(e.Size+1, 1<<20)))
	if err != nil {
		return err
	}
	e.Digest = sum
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	var refs []chunk.Ref
	take := func(b []byte) error {
		ref := chunk.Ref{Size: int64(len(b))}
		if !chunk.Zero(b) {
			var err error
			if ref.ID, err = add(b); err != nil {
				return err
			}
		}
		refs = chunk.Append(refs, ref)
		return nil
	}
	if e.Size <= int64(r.Params().Min) {
		b := make([]byte, e.Size)
		if _, err := f.ReadAt(b, 0); err != nil && e.Size > 0 {
			return err
		}
		if e.Size > 0 {
			if err := take(b); err != nil {
				return err
			}
		}
	} else {
		split.Reset(f)
		for {
			b, err := split.Next()
			if err != nil {
				break
			}
			if err := take(b); err != nil {
				return err
			}
		}
	}
	switch {
	case len(refs) == 1 && refs[0].ID == e.Digest:
	case len(refs) <= manifest.MaxInline:
		e.Chunks = refs
	default:
		e.Lists, err = manifest.CutLists(refs, add)
	}
	return err
}
