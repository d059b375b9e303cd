package repo

import (
	"bytes"
	"context"
	"sync"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/index"
	"nightferry/internal/pack"
)

// PutPack stores a pack. Its chunks count only once a segment names the pack,
// which must happen within half the grace period: gc deletes unnamed packs.
func (r *Repo) PutPack(ctx context.Context, p pack.Finished) error {
	info, err := r.objects.store.Put(ctx, PackKey(p.Digest), bucket.Body{R: bytes.NewReader(p.Bytes), Size: int64(len(p.Bytes)), SHA256: p.Digest}, bucket.Cond{})
	if err == nil {
		r.unnamed.add(p.Digest, clock.StoreAt(info.Date))
	}
	return err
}

// unnamedPacks holds the packs that this process has stored and that no segment names yet. It is safe for concurrent
// use.
type unnamedPacks struct {
	mu     sync.Mutex
	stored map[digest.Digest]clock.Store
}

func (u *unnamedPacks) add(pack digest.Digest, at clock.Store) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stored == nil {
		u.stored = map[digest.Digest]clock.Store{}
	}
	u.stored[pack] = at
}

// oldest returns when the first of packs was stored; zero if this process stored none of them.
func (u *unnamedPacks) oldest(packs []index.Pack) (t clock.Store) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range packs {
		if at, ok := u.stored[p.Digest]; ok && (t.IsZero() || at.Before(t)) {
			t = at
		}
	}
	return t
}

// remove forgets packs that a segment names now.
func (u *unnamedPacks) remove(packs []index.Pack) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range packs {
		delete(u.stored, p.Digest)
	}
}

// Batch collects the contents of new packs until they become a segment.
type Batch struct {
	packs   []index.Pack
	records []index.Record
	bytes   int64
}

// Add adds a stored pack.
func (b *Batch) Add(p pack.Finished) {
	b.AddFooter(index.Pack{Digest: p.Digest, Salt: p.Salt, Size: uint32(len(p.Bytes))}, &p.Footer)
}

// AddFooter adds a stored pack, as described by its footer.
func (b *Batch) AddFooter(p index.Pack, f *pack.Footer) {
	n := uint32(len(b.packs))
	b.packs = append(b.packs, p)
	f.Each(func(id digest.Digest, at pack.Location) {
		b.records = append(b.records, index.Record{ID: id, Pack: n, At: at})
	})
	b.bytes += int64(p.Size)
}

// Bytes returns the bytes of the packs in the batch.
func (b *Batch) Bytes() int64 { return b.bytes }

// Records returns the number of chunks in the batch.
func (b *Batch) Records() int { return len(b.records) }

// IDs returns the ids of the chunks in the batch.
func (b *Batch) IDs() []digest.Digest {
	ids := make([]digest.Digest, len(b.records))
	for i, r := range b.records {
		ids[i] = r.ID
	}
	return ids
}
