package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
)

// readPacks reads every pack of the store completely. chunks holds the number
// of chunks that the index places in each pack.
func (f *fsck) readPacks(ctx context.Context, chunks map[digest.Digest]int64) error {
	todo := make([]digest.Digest, 0, len(f.packs))
	for d := range f.packs {
		todo = append(todo, d)
	}
	slices.SortFunc(todo, digest.Digest.Compare)
	var mu sync.Mutex // f.known, f.bad, f.rep
	g, ctx := errgroup.WithContext(ctx)
	next := make(chan digest.Digest)
	g.Go(func() error {
		defer close(next)
		for _, d := range todo {
			select {
			case next <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(f.o.Connections, len(todo)) {
		g.Go(func() error {
			buf := make([]byte, 0, pack.MaxSize)
			for d := range next {
				places, b, err := f.readPack(ctx, d, buf)
				buf = b[:0]
				if err != nil && !isStoredFault(err) {
					return err
				}
				mu.Lock()
				_, named := chunks[d]
				if err == nil && named {
					err = f.comparePack(d, places, chunks[d])
				}
				f.rep.ReadPacks++
				f.rep.ReadBytes += int64(len(b))
				switch {
				case err == nil:
				case named && !errors.Is(err, fs.ErrNotExist):
					f.bad[d] = bad{cause: err.Error(), there: true}
				case named:
					f.bad[d] = bad{cause: "it is not there"}
				case !errors.Is(err, fs.ErrNotExist):
					f.addFinding(Finding{Severity: Garbage, Kind: KindPack, Key: repo.PackKey(d), Cause: err.Error() + "; the index does not name it", Remedy: remedyGC})
				}
				f.emitEvent(Event{Phase: "read packs", Done: f.rep.ReadPacks, Total: int64(len(todo))})
				mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// located is a chunk at the place that a pack's own footer names.
type located struct {
	id digest.Digest
	at pack.Location
}

// readPack reads a pack into buf and proves its name, its footer, each block
// and each chunk.
func (f *fsck) readPack(ctx context.Context, d digest.Digest, buf []byte) (chunks []located, b []byte, err error) {
	body, info, err := f.r.Store().Get(ctx, repo.PackKey(d), 0, -1)
	if err != nil {
		return nil, buf, err
	}
	defer body.Close()
	if info.Size < minPack || info.Size > pack.MaxSize {
		return nil, buf, fmt.Errorf("it has %d bytes: %w", info.Size, frame.ErrDamaged)
	}
	b = slices.Grow(buf[:0], int(info.Size))[:info.Size]
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, b, err
	}
	if digest.Of(b) != d {
		return nil, b, fmt.Errorf("its bytes do not match its name: %w", frame.ErrDamaged)
	}
	footer, obj, err := pack.Parse(f.r.Keys(), b)
	if err != nil {
		return nil, b, err
	}
	dec, err := pack.NewDecoder()
	if err != nil {
		return nil, b, err
	}
	defer dec.Close()
	raw := make([]byte, 0, pack.MaxBlock)
	at := uint32(pack.PreludeSize)
	footer.Each(func(id digest.Digest, loc pack.Location) { chunks = append(chunks, located{id, loc}) })
	rest := chunks
	for i, block := range footer.Blocks {
		opened, err := pack.OpenBlock(obj, dec, raw[:0], b[at:at+block.Stored], at)
		if err != nil {
			return nil, b, fmt.Errorf("block %d: %w", i, err)
		}
		for _, c := range rest[:len(block.Chunks)] {
			end := int64(c.at.Offset) + int64(c.at.Size)
			if end > int64(len(opened)) || f.r.Keys().ChunkID(opened[c.at.Offset:end]) != c.id {
				return nil, b, fmt.Errorf("chunk %s does not match its id: %w", c.id.Short(), frame.ErrDamaged)
			}
		}
		rest = rest[len(block.Chunks):]
		at += block.Stored
	}
	return chunks, b, nil
}

// comparePack checks the index's records of a pack against the pack's footer: each
// of the want records must be where the footer has it.
func (f *fsck) comparePack(d digest.Digest, chunks []located, want int64) error {
	seen := map[digest.Digest]bool{}
	for _, c := range chunks {
		if seen[c.id] {
			continue
		}
		seen[c.id] = true
		places, err := f.known.Places(c.id)
		if err != nil {
			return err
		}
		for _, p := range places {
			if f.x.Packs()[p.Pack].Digest != d {
				continue
			}
			// A pack may hold a chunk twice; then either place is right.
			if p.At != c.at && !slices.Contains(chunks, located{c.id, p.At}) {
				return fmt.Errorf("the index places chunk %s elsewhere in it than its footer: %w", c.id.Short(), frame.ErrDamaged)
			}
			want--
		}
	}
	if want > 0 {
		return fmt.Errorf("the index places %d chunks in it that its footer does not list: %w", want, frame.ErrDamaged)
	}
	return nil
}
