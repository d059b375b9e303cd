package apply

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

// seedLocal fills wants from data already on this machine: the last release's files, even those that will be replaced or
// deleted; files that the site has changed; and the folders in Options.Seeds. Every chunk is compared with its id,
// so a seed needs no other proof. A seed file or folder that cannot be read is not an error, because the store has
// the chunks.
func (g *stager) seedLocal(ctx context.Context, oldLists []digest.Digest) error {
	if g.lack == 0 {
		return nil
	}
	// If a page is gone from the store, its chunks only have to be fetched.
	if err := g.remote.repo.Manifests(g.remote.pages).Load(ctx, g.remote.loadIndex, oldLists, g.remote.fetchOptions()); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := g.seedCatalogue(ctx); err != nil {
		return err
	}
	if err := g.seedTouched(ctx); err != nil {
		return err
	}
	for _, dir := range g.target.o.Seeds {
		if err := g.seedFolder(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// isSated reports whether all wants are filled.
func (g *stager) isSated() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lack == 0
}

// hits are the wanted chunks in one file.
type hits struct {
	path string
	refs []chunk.Ref
	at   []int64
}

// seedCatalogue searches all files of the last release.
func (g *stager) seedCatalogue(ctx context.Context) error {
	cat, err := g.target.openRecords(catalogueName)
	if err != nil {
		return err
	}
	defer cat.close()
	jobs := make(chan hits)
	eg, ctx := errgroup.WithContext(ctx)
	for range hashWorkers() {
		eg.Go(func() error {
			buf := make([]byte, chunk.MaxSize)
			for h := range jobs {
				if err := g.seedHits(ctx, h, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	eg.Go(func() error {
		defer close(jobs)
		for !g.isSated() {
			rec, err := cat.peek()
			if err != nil || rec == nil {
				return err
			}
			cat.pop()
			h, err := g.findHits(rec)
			if err != nil {
				return err
			}
			if len(h.refs) == 0 {
				continue
			}
			select {
			case jobs <- h:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return eg.Wait()
}

func (g *stager) findHits(rec *scan.Record) (h hits, err error) {
	e, err := rec.Entry()
	if err != nil || e.Kind != manifest.File || e.Size == 0 {
		return h, err
	}
	refs, err := g.remote.repo.Manifests(g.remote.pages).Refs(e)
	if err != nil {
		return h, nil // its list pages are not cached any more
	}
	h.path = e.Path
	var at int64
	for _, r := range refs {
		if !r.Hole() && g.isWanted(r.ID) {
			h.refs, h.at = append(h.refs, r), append(h.at, at)
		}
		at += r.Size
	}
	return h, nil
}

func (g *stager) seedHits(ctx context.Context, h hits, buf []byte) error {
	f, err := g.target.root.Open(h.path)
	if err != nil {
		return nil // gone, or not readable: not a seed
	}
	defer func() { _ = f.Close() }() // it was only read
	for i, r := range h.refs {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b := buf[:r.Size]
		if _, err := f.ReadAt(b, h.at[i]); err != nil || g.remote.repo.Keys().ChunkID(b) != r.ID {
			continue
		}
		if err := g.deliverChunk(ctx, r.ID, b, true); err != nil {
			return err
		}
	}
	return nil
}

// seedTouched splits into chunks the files that are to be replaced and that the catalogue does not know, or not in
// their current state.
func (g *stager) seedTouched(ctx context.Context) error {
	var touched []int32
	for i := range g.changes {
		if c := &g.changes[i]; c.act == actPlace && c.onDisk && !c.asReleased && c.chunksLeft > 0 {
			touched = append(touched, int32(i))
		}
	}
	return g.cutEach(ctx, g.target.root, touched)
}

// seedFolder splits the files of a folder in Options.Seeds into chunks: first those with the paths of new files,
// then, if chunks are still wanted, all.
func (g *stager) seedFolder(ctx context.Context, dir string) error {
	skip := func(err error) error {
		g.report.emitRetry(fmt.Errorf("%w: its content is fetched from the store", err))
		return nil
	}
	root, err := durable.Open(dir, durable.Options{})
	if err != nil {
		return skip(err)
	}
	defer func() { _ = root.Close() }() // it was only read
	var lacking []int32
	for i := range g.changes {
		if c := &g.changes[i]; c.act == actPlace && c.chunksLeft > 0 {
			lacking = append(lacking, int32(i))
		}
	}
	if err := g.cutEach(ctx, root, lacking); err != nil {
		return err
	}
	split, err := chunk.NewSplitter(g.remote.repo.Params())
	if err != nil {
		return err
	}
	var failed error
	err = scan.Walk(ctx, root.Dir(), scan.WalkOptions{}, func(it scan.Item) error {
		if g.isSated() {
			return errEnough
		}
		if it.Kind != scan.File || it.Err != nil {
			return nil
		}
		failed = g.cutFile(ctx, root, it.Path, split)
		return failed
	})
	switch {
	case err == nil, errors.Is(err, errEnough):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed == nil:
		return skip(err)
	}
	return failed
}

var errEnough = errors.New("nothing is wanted any more")

func (g *stager) cutEach(ctx context.Context, root *durable.Root, indexes []int32) error {
	if len(indexes) == 0 {
		return nil
	}
	splitters := make(chan *chunk.Splitter, hashWorkers())
	for range cap(splitters) {
		split, err := chunk.NewSplitter(g.remote.repo.Params())
		if err != nil {
			return err
		}
		splitters <- split
	}
	return eachIndex(ctx, indexes, func(ctx context.Context, i int32, _ []byte) error {
		split := <-splitters
		defer func() { splitters <- split }()
		if g.isSated() {
			return nil
		}
		return g.cutFile(ctx, root, g.changes[i].path, split)
	})
}

// cutFile splits one file as publish does and delivers the wanted chunks.
func (g *stager) cutFile(ctx context.Context, root *durable.Root, name string, split *chunk.Splitter) error {
	f, err := root.Open(name)
	if err != nil {
		return nil // not a seed
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if info.Size() <= int64(g.remote.repo.Params().Min) {
		b, err := io.ReadAll(io.LimitReader(f, info.Size()))
		if err != nil || len(b) == 0 {
			return nil
		}
		return g.deliverChunk(ctx, g.remote.repo.Keys().ChunkID(b), b, true)
	}
	split.Reset(f)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b, err := split.Next()
		if err != nil {
			return nil // end of the file, or unreadable from here
		}
		if chunk.Zero(b) {
			continue
		}
		if err := g.deliverChunk(ctx, g.remote.repo.Keys().ChunkID(b), b, true); err != nil {
			return err
		}
	}
}

// estimateFetch counts, for a dry run, the bytes that must come from the store: the chunks that no file of the last
// release holds.
func (g *stager) estimateFetch(ctx context.Context, oldLists []digest.Digest) error {
	_ = g.remote.repo.Manifests(g.remote.pages).Load(ctx, g.remote.loadIndex, oldLists, g.remote.fetchOptions()) // best effort, as in seed
	cat, err := g.target.openRecords(catalogueName)
	if err != nil {
		return err
	}
	defer cat.close()
	for {
		rec, err := cat.peek()
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		cat.pop()
		h, err := g.findHits(rec)
		if err != nil {
			return err
		}
		for _, r := range h.refs {
			from, to := g.findWants(r.ID)
			for i := from; i < to; i++ {
				g.done[i] = true
				g.report.res.BytesHeld += r.Size
			}
		}
	}
	g.report.res.BytesNeeded = g.neededBytes()
	return nil
}
