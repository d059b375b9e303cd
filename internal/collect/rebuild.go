package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/seal"
)

// firstTail is how much of a pack's end is read at first; the footers of
// nearly all packs fit.
const firstTail = 32 << 10

// footerTries is how often a damaged footer is read again before the damage is
// attributed to the store.
const footerTries = 3

// rebuildIndex makes a new index from the footers of all packs. It leaves out a pack
// only if it is damaged. A pack that cannot be read now may be needed, and gc
// would delete it as a leftover: so a read error ends the run, and the root
// stays.
func (f *fsck) rebuildIndex(ctx context.Context) error {
	packs, err := listObjects(ctx, f.r.Store(), repo.PacksPrefix, repo.PackKey, nil)
	if err != nil {
		return err
	}
	todo := make([]digest.Digest, 0, len(packs))
	for d := range packs {
		todo = append(todo, d)
	}
	slices.SortFunc(todo, digest.Digest.Compare)
	_, err = f.segs.Rebuild(ctx, func(add func(*repo.Batch) error) error {
		var mu sync.Mutex
		var batch repo.Batch
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, d := range todo {
			g.Go(func() error {
				p, footer, err := f.readFooter(ctx, d)
				for try := 1; isDamaged(err) && try < footerTries; try++ {
					p, footer, err = f.readFooter(ctx, d)
				}
				mu.Lock()
				defer mu.Unlock()
				if isDamaged(err) {
					f.addFinding(Finding{Kind: KindPack, Key: repo.PackKey(d), Cause: err.Error(), Remedy: "it is left out of the index"})
					return nil
				}
				if err != nil {
					return fmt.Errorf("%s cannot be read, so the index root stays as it is: %w", repo.PackKey(d), err)
				}
				batch.AddFooter(p, footer)
				f.rep.Indexed++
				f.emitEvent(Event{Phase: "rebuild", Done: f.rep.Indexed, Total: int64(len(todo))})
				if batch.Records() < segmentRecords {
					return nil
				}
				full := batch
				batch = repo.Batch{}
				return add(&full)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if batch.Records() == 0 {
			return nil
		}
		return add(&batch)
	})
	return err
}

// isDamaged reports whether bytes arrived but are wrong. A pack that did not
// arrive, for any reason, is not damaged.
func isDamaged(err error) bool {
	return errors.Is(err, frame.ErrDamaged) || errors.Is(err, seal.ErrOpen)
}

// readFooter reads a pack's footer with one or two suffix reads, and in an
// encrypted repository its prelude for the salt.
func (f *fsck) readFooter(ctx context.Context, d digest.Digest) (p index.Pack, footer *pack.Footer, err error) {
	key := repo.PackKey(d)
	var salt []byte
	for need := int64(firstTail); ; {
		tail, size, err := f.readRange(ctx, key, -need, -1)
		if err != nil {
			return p, nil, err
		}
		if size < minPack {
			return p, nil, fmt.Errorf("%s has %d bytes, a pack has more: %w", key, size, frame.ErrDamaged)
		}
		if f.r.Keys() != nil && salt == nil {
			head, _, err := f.readRange(ctx, key, 0, pack.PreludeSize)
			if err != nil {
				return p, nil, err
			}
			if salt, err = pack.ParsePrelude(pack.Kind, pack.Version, head); err != nil {
				return p, nil, err
			}
		}
		footer, more, err := pack.ReadFooter(f.r.Keys(), salt, tail, size)
		if err != nil {
			return p, nil, err
		}
		if more == 0 {
			return index.Pack{Digest: d, Salt: salt, Size: uint32(size)}, footer, nil
		}
		if more <= need {
			return p, nil, fmt.Errorf("%s: its footer asks for %d bytes of %d: %w", key, more, need, frame.ErrDamaged)
		}
		need = more
	}
}

func (f *fsck) readRange(ctx context.Context, key string, off, n int64) (b []byte, size int64, err error) {
	body, info, err := f.r.Store().Get(ctx, key, off, n)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	b, err = io.ReadAll(body)
	return b, info.Size, err
}
