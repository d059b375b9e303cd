package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

// maxTries bounds how often damaged data is fetched again.
const maxTries = 8

// CorruptError reports a chunk that never matches its id, however often it is
// fetched. Reading it from another machine shows whether the store or the line
// is at fault.
type CorruptError struct {
	Pack  string // key of the pack
	Chunk digest.Digest
	Err   error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("chunk %s in %s arrives damaged, however often it is fetched (%v)", e.Chunk.Short(), e.Pack, e.Err)
}

// Remedy returns how to find the cause, and what to do then.
func (e *CorruptError) Remedy() string {
	return "run nightferry fsck --read-data STORE where the content is pushed: if it finds damage, run fsck --forget-missing STORE and push again; if not, the line or a proxy between this machine and the store changes bytes"
}

// ArrivalError reports data that arrived damaged and is fetched again.
type ArrivalError struct {
	Key string // of the object
	Err error
}

func (e *ArrivalError) Error() string {
	return fmt.Sprintf("%s arrived damaged (%v), fetching it again", e.Key, e.Err)
}

func (e *ArrivalError) Unwrap() error { return e.Err }

func (e *CorruptError) Unwrap() error { return e.Err }

// Block is one fetched block: the chunks that were wanted of it, all proven.
type Block struct {
	Places []Place // of the wanted chunks, by offset
	Raw    []byte  // the opened block; valid until the callback returns
	Stored int     // bytes it took on the wire
}

// Chunk returns the bytes of Places[i].
func (b *Block) Chunk(i int) []byte {
	at := b.Places[i].At
	return b.Raw[at.Offset : at.Offset+at.Size]
}

// FetchOptions tune a fetch. The zero value is usable.
type FetchOptions struct {
	Connections int                         // requests under way at once; 0: 8
	OnBytes     func(n int64)               // called with byte counts as bytes arrive
	OnRetry     func(err error)             // called with the reason when a block is fetched again
	Gate        func(context.Context) error // called before each request and each block; an error ends the fetch
}

// errGone means that a pack is not in the store. It is distinct from
// fs.ErrNotExist, which a caller's function may return.
var errGone = errors.New("the pack is gone")

// span is a run of blocks of one pack that one request fetches.
type span struct {
	pack   uint32
	places []Place
	start  int64
	end    int64
}

// Fetch gets the blocks that hold places and hands each to fn, from up to
// Connections goroutines at once. Ranges are coalesced, never multi-range; gaps
// up to 1 MiB are read through. It fails with a *CorruptError or a
// *MissingError if the store's data does not match the index.
func (x *Index) Fetch(ctx context.Context, places []Place, o FetchOptions, fn func(context.Context, *Block) error) error {
	gone, err := x.fetchPlaces(ctx, places, o, fn)
	if err != nil || len(gone) == 0 {
		return err
	}
	// gc may have moved these chunks to other packs since the root was read.
	fresh, err := x.repo.Index(ctx)
	if err != nil {
		return err
	}
	key := PackKey(x.packs[gone[0].Pack].Digest)
	ids := make([]digest.Digest, len(gone))
	for i, p := range gone {
		ids[i] = p.ID
	}
	again, missing, err := fresh.Locate(ctx, ids)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &MissingError{Chunks: missing, Pack: key}
	}
	if o.OnRetry != nil {
		o.OnRetry(fmt.Errorf("%s is gone, reading %d chunks elsewhere", key, len(ids)))
	}
	if gone, err = fresh.fetchPlaces(ctx, again, o, fn); err == nil && len(gone) > 0 {
		err = &MissingError{Chunks: ids, Pack: key}
	}
	return err
}

func (x *Index) fetchPlaces(ctx context.Context, places []Place, o FetchOptions, fn func(context.Context, *Block) error) (gone []Place, err error) {
	if o.Connections <= 0 {
		o.Connections = 8
	}
	x.announceKeys(ctx, places)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	spans := make(chan span)
	g.Go(func() error {
		defer close(spans)
		return x.cutSpans(places, func(s span) error {
			select {
			case spans <- s:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range min(o.Connections, len(places)) {
		g.Go(func() error {
			f := fetcher{x: x, o: o, fn: fn}
			defer f.close()
			for s := range spans {
				left, err := f.fetchSpan(ctx, s)
				if errors.Is(err, errGone) {
					mu.Lock()
					gone = append(gone, left...)
					mu.Unlock()
					continue
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return gone, g.Wait()
}

// announceKeys passes the keys of the needed objects to a store that asks for them.
// A store that must request permission can then do so once for all.
func (x *Index) announceKeys(ctx context.Context, places []Place) {
	p, ok := x.repo.objects.store.(interface {
		Prefetch(ctx context.Context, keys []string)
	})
	if !ok {
		return
	}
	var keys []string
	seen := map[int32]struct{}{}
	for i := range places {
		n := int32(places[i].Pack)
		if _, ok := seen[n]; !ok {
			seen[n] = struct{}{}
			keys = append(keys, PackKey(x.packs[places[i].Pack].Digest))
		}
	}
	p.Prefetch(ctx, keys)
}

// cutSpans sorts places by pack and offset and cuts them into requests.
func (x *Index) cutSpans(places []Place, fn func(span) error) error {
	places = slices.Clone(places)
	slices.SortFunc(places, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.At.Block, b.At.Block), cmp.Compare(a.At.Offset, b.At.Offset))
	})
	for len(places) > 0 {
		s := span{pack: places[0].Pack, start: int64(places[0].At.Block)}
		n := 0
		for ; n < len(places) && places[n].Pack == s.pack; n++ {
			at := int64(places[n].At.Block)
			if n > 0 && at-s.end > maxGap {
				break
			}
			s.end = max(s.end, at+int64(places[n].At.Stored))
		}
		s.places = places[:n]
		if err := fn(s); err != nil {
			return err
		}
		places = places[n:]
	}
	return nil
}

// fetcher is one goroutine's buffers.
type fetcher struct {
	x   *Index
	o   FetchOptions
	fn  func(context.Context, *Block) error
	dec *zstd.Decoder
	in  []byte
	out []byte
}

func (f *fetcher) close() {
	if f.dec != nil {
		f.dec.Close()
	}
}

func (f *fetcher) waitGate(ctx context.Context) error {
	if f.o.Gate == nil {
		return ctx.Err()
	}
	return f.o.Gate(ctx)
}

// fetchSpan fetches a run of blocks. If it returns errGone, which may happen midway,
// left holds the places that it did not get.
func (f *fetcher) fetchSpan(ctx context.Context, s span) (left []Place, err error) {
	if f.dec == nil {
		if f.dec, err = pack.NewDecoder(); err != nil {
			return nil, err
		}
		f.in = make([]byte, 0, pack.MaxStored)
		f.out = make([]byte, 0, pack.MaxBlock)
	}
	if err := f.waitGate(ctx); err != nil {
		return nil, err
	}
	p := f.x.packs[s.pack]
	key := PackKey(p.Digest)
	obj, err := f.x.repo.identity.keys.Object(pack.Kind, p.Salt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	body, _, err := f.x.repo.objects.store.Get(ctx, key, s.start, s.end-s.start)
	if err != nil {
		return s.places, goneOr(err)
	}
	defer body.Close()
	at := s.start
	for places := s.places; len(places) > 0; {
		n := 1
		for n < len(places) && places[n].At.Block == places[0].At.Block {
			n++
		}
		if err := f.waitGate(ctx); err != nil {
			return nil, err
		}
		where := places[0].At
		if int64(where.Block) < at || int(where.Stored) > pack.MaxStored {
			return nil, &CorruptError{Pack: key, Chunk: places[0].ID, Err: fmt.Errorf("the index places blocks over one another: %w", frame.ErrDamaged)}
		}
		if _, err := io.CopyN(io.Discard, body, int64(where.Block)-at); err != nil {
			return places, goneOr(err)
		}
		in := f.in[:where.Stored]
		if _, err := io.ReadFull(body, in); err != nil {
			return places, goneOr(err)
		}
		f.countBytes(int64(where.Block) - at + int64(len(in)))
		at = int64(where.Block) + int64(len(in))
		if err := f.deliverBlock(ctx, key, obj, places[:n], in); err != nil {
			return places, err
		}
		places = places[n:]
	}
	return nil, nil
}

// goneOr returns errGone if the store reports that a pack is missing. This may
// happen while its body is read, because a broken body is requested again.
func goneOr(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errGone
	}
	return err
}

func (f *fetcher) countBytes(n int64) {
	if f.o.OnBytes != nil {
		f.o.OnBytes(n)
	}
}

// deliverBlock proves the wanted chunks of one block and hands it on. If they do not
// match, block fetches it again over another connection, until it is right, or
// until the same damage has arrived three times. Such damage is not the line's.
func (f *fetcher) deliverBlock(ctx context.Context, key string, obj *seal.Object, places []Place, in []byte) error {
	var copies arrivals
	for {
		raw, bad, err := f.openBlock(obj, places, in)
		if err != nil {
			copies = append(copies, in)
			if vote := copies.majorityBits(); vote != nil {
				raw, _, err = f.openBlock(obj, places, vote)
			}
		}
		if err == nil {
			return f.fn(ctx, &Block{Places: places, Raw: raw, Stored: len(in)})
		}
		if len(copies) == maxTries || copies.countRepeats() == 3 {
			return &CorruptError{Pack: key, Chunk: bad, Err: err}
		}
		if f.o.OnRetry != nil {
			f.o.OnRetry(&ArrivalError{Key: "chunk " + bad.Short() + " in " + key, Err: err})
		}
		if err := f.waitGate(ctx); err != nil {
			return err
		}
		reconnect(f.x.repo.objects.store)
		again, err := f.x.repo.objects.readRange(ctx, key, int64(places[0].At.Block), int64(len(in)))
		if err != nil {
			return goneOr(err)
		}
		f.countBytes(int64(len(again)))
		in = again
	}
}

func (f *fetcher) openBlock(obj *seal.Object, places []Place, in []byte) (raw []byte, bad digest.Digest, err error) {
	raw, err = pack.OpenBlock(obj, f.dec, f.out[:0], in, places[0].At.Block)
	if err != nil {
		return nil, places[0].ID, err
	}
	for _, p := range places {
		end := int64(p.At.Offset) + int64(p.At.Size)
		if end > int64(len(raw)) || f.x.repo.identity.keys.ChunkID(raw[p.At.Offset:end]) != p.ID {
			return nil, p.ID, fmt.Errorf("it does not match its id: %w", frame.ErrDamaged)
		}
	}
	return raw, bad, nil
}
