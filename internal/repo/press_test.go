package repo

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/index"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/testbed"
)

// press creates a repository and fills it using only the format packages.
type press struct {
	t     testing.TB
	store bucket.Store
	root  ed25519.PrivateKey
	key   ed25519.PrivateKey
	seal  []byte
	now   time.Time
	rnd   *rand.ChaCha8
}

const testChannel = "package"

func seedKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32))
}

func newPress(t testing.TB, sealKey []byte) *press {
	t.Helper()
	p := &press{t: t, root: seedKey(1), key: seedKey(2), seal: sealKey, now: time.Unix(1_800_000_000, 0), rnd: rand.NewChaCha8([32]byte{7})}
	p.store = testbed.OpenStore(t, testbed.FileURL(t.TempDir()), bucket.Options{})
	if _, err := Init(t.Context(), p.store, InitOptions{Key: sealKey, Root: p.root, Release: p.key, Now: p.now}); err != nil {
		t.Fatal(err)
	}
	return p
}

// both runs a test on a plain and on an encrypted repository.
func both(t *testing.T, run func(t *testing.T, p *press)) {
	t.Run("plain", func(t *testing.T) { run(t, newPress(t, nil)) })
	t.Run("encrypted", func(t *testing.T) { run(t, newPress(t, bytes.Repeat([]byte{9}, 32))) })
}

func (p *press) open(s bucket.Store, m *Memory) (*Repo, error) {
	if s == nil {
		s = p.store
	}
	return Open(p.t.Context(), s, Options{Memory: m, Key: p.seal, Now: func() time.Time { return p.now }})
}

func (p *press) mustOpen(s bucket.Store) *Repo {
	p.t.Helper()
	r, err := p.open(s, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *press) folder() *durable.Root {
	p.t.Helper()
	d, err := durable.Open(p.t.TempDir(), durable.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = d.Close() })
	return d
}

func (p *press) noise(n int) []byte {
	b := make([]byte, n)
	_, _ = p.rnd.Read(b)
	return b
}

// chunks returns n new contents of size bytes.
func (p *press) chunks(n, size int) (out [][]byte) {
	for range n {
		out = append(out, p.noise(size))
	}
	return out
}

// pack stores chunks in one pack, each in a block of its own.
func (p *press) pack(r *Repo, chunks ...[]byte) pack.Finished {
	p.t.Helper()
	w, err := pack.NewWriter(r.Keys(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	enc, err := pack.NewEncoder()
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = enc.Close() }()
	for _, c := range chunks {
		w.Add(pack.Compress(enc, nil, c, []chunk.Ref{{ID: r.Keys().ChunkID(c), Size: int64(len(c))}}))
	}
	done, err := w.Finish()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := r.PutPack(p.t.Context(), done); err != nil {
		p.t.Fatal(err)
	}
	return done
}

// add stores chunks in one pack and indexes them.
func (p *press) add(r *Repo, s *Segments, chunks ...[]byte) pack.Finished {
	p.t.Helper()
	done := p.pack(r, chunks...)
	var b Batch
	b.Add(done)
	if err := s.AddSegment(p.t.Context(), &b); err != nil {
		p.t.Fatal(err)
	}
	return done
}

func (p *press) index(r *Repo) *Index {
	p.t.Helper()
	x, err := r.Index(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return x
}

// commit describes a release of one file of one chunk, on top of the head.
func (p *press) commit(r *Repo, s *Segments, content []byte) Commit {
	p.t.Helper()
	e := manifest.Entry{Path: "file", Size: int64(len(content)), Mode: 0o644, Digest: digest.Of(content)}
	if r.Keys() != nil {
		e.Chunks = []chunk.Ref{{ID: r.Keys().ChunkID(content), Size: int64(len(content))}}
	}
	page, err := manifest.EncodePage([]manifest.Entry{e})
	if err != nil {
		p.t.Fatal(err)
	}
	p.add(r, s, content, page)
	var check manifest.Checker
	if err := check.Add(&e); err != nil {
		p.t.Fatal(err)
	}
	rel := manifest.Release{Channel: testChannel, Created: p.now.Unix(), Portable: true,
		Pages: []manifest.PageRef{{ID: r.Keys().ChunkID(page), Entries: 1, First: "file"}}}
	rel.Totals, rel.Tree = check.Sum()
	head, err := r.Head(p.t.Context(), testChannel)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	return Commit{Release: rel, Parent: head}
}

// publish makes a release of content.
func (p *press) publish(content string) *Release {
	p.t.Helper()
	r := p.mustOpen(nil)
	rel, err := r.Publisher(p.key).Publish(p.t.Context(), p.commit(r, r.Segments(p.folder()), []byte(content)))
	if err != nil {
		p.t.Fatal(err)
	}
	return rel
}

func (p *press) get(key string) []byte    { return testbed.ReadObject(p.t, p.store, key) }
func (p *press) put(key string, b []byte) { testbed.WriteObject(p.t, p.store, key, b) }

func ids(r *Repo, chunks [][]byte) (out []digest.Digest) {
	for _, c := range chunks {
		out = append(out, r.Keys().ChunkID(c))
	}
	return out
}

// synthetic adds a segment of n random records, in packs that do not exist, as
// the newest, and returns the ids.
func (p *press) synthetic(r *Repo, n int) []digest.Digest {
	p.t.Helper()
	const perPack = 140
	packs := make([]index.Pack, n/perPack+1)
	for i := range packs {
		packs[i] = index.Pack{Digest: digest.Digest(p.noise(32)), Salt: r.Keys().NewSalt(), Size: 18 << 20}
	}
	records := make([]index.Record, n)
	out := make([]digest.Digest, n)
	for i := range records {
		_, _ = p.rnd.Read(out[i][:])
		slot := uint32(i % perPack)
		records[i] = index.Record{ID: out[i], Pack: uint32(i / perPack), At: pack.Location{Block: pack.PreludeSize + slot/8*700_000, Stored: 700_000, Offset: slot % 8 * 131_072, Size: 131_072}}
	}
	slices.SortFunc(records, func(a, b index.Record) int { return a.ID.Compare(b.ID) })
	obj, ref, err := index.Build(r.Keys(), packs, records)
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(SegmentKey(ref.Digest), obj)
	if _, err := r.ReplaceRoot(p.t.Context(), func(root *index.Root, _ clock.Store) error {
		root.Segments = slices.Insert(root.Segments, 0, ref)
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	return out
}
