package apply

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"slices"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
)

// want is one chunk at one offset of one new file.
type want struct {
	id     digest.Digest
	at     int64 // offset in the file, bytes
	change int32
	size   int32 // bytes
}

// chunkRefs returns the chunk references of a new file. Its list pages are cached.
func (r *remote) chunkRefs(c *change) ([]chunk.Ref, error) {
	e := manifest.Entry{Path: c.path, Size: c.size, Digest: c.digest}
	if c.parts != nil {
		e.Chunks, e.Lists = c.parts.chunks, c.parts.lists
	}
	return r.repo.Manifests(r.pages).Refs(&e)
}

// listStaged returns the names of the files that an earlier run staged.
func (t *targetDir) listStaged() (map[string]struct{}, error) {
	shards, err := t.root.ReadDir(stageDir)
	if err != nil {
		return nil, err
	}
	names := map[string]struct{}{}
	for _, d := range shards {
		dir := path.Join(stageDir, d.Name())
		files, err := t.root.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			names[path.Join(dir, f.Name())] = struct{}{}
		}
	}
	return names, nil
}

// listWants fills g.wants with every chunk that the given changes lack, sorted by id. It reads files staged by an
// earlier run and does not want their right chunks again.
func (g *stager) listWants(ctx context.Context, indexes []int32, staged map[string]struct{}) error {
	g.wants, g.filled = g.wants[:0], 0
	var resumed []int32
	for _, i := range indexes {
		c := &g.changes[i]
		if _, ok := staged[c.stageName()]; ok {
			resumed = append(resumed, i)
			continue
		}
		refs, err := g.remote.chunkRefs(c)
		if err != nil {
			return err
		}
		g.addWants(i, refs, nil)
	}
	err := eachIndex(ctx, resumed, func(ctx context.Context, i int32, buf []byte) error {
		return g.resumeStaged(ctx, i, buf)
	})
	if err != nil {
		return err
	}
	slices.SortFunc(g.wants, func(a, b want) int {
		return cmp.Or(a.id.Compare(b.id), cmp.Compare(a.change, b.change), cmp.Compare(a.at, b.at))
	})
	g.done = make([]bool, len(g.wants))
	g.lack = len(g.wants)
	left := int64(0)
	for i := range g.wants {
		left += int64(g.wants[i].size)
	}
	g.bytesDone.Store(g.bytesTotal - left) // holes and bytes staged by an earlier run
	return nil
}

// addWants adds the chunks of a file that have does not mark as present.
func (g *stager) addWants(i int32, refs []chunk.Ref, have []bool) {
	c := &g.changes[i]
	c.chunksLeft = 0
	if p := newPipe(refs, have); p != nil {
		g.pipes[i] = p
	}
	var at, holes int64
	for n, r := range refs {
		if r.Hole() {
			holes += r.Size
		}
		if !r.Hole() && (have == nil || !have[n]) {
			g.wants = append(g.wants, want{id: r.ID, at: at, change: i, size: int32(r.Size)})
			c.chunksLeft++
		}
		at += r.Size
	}
	switch {
	case have != nil: // the file exists; it is sparse or not as the earlier run made it
	case holes >= minThin && g.target.keeps.Sparse && !refusesSparse(c.path):
		g.thin[i] = struct{}{}
	default:
		g.filled += holes
	}
}

// resumeStaged finds the right chunks of a staged file. A power cut may have damaged any of them, so each is compared
// with its id.
func (g *stager) resumeStaged(ctx context.Context, i int32, buf []byte) error {
	c := &g.changes[i]
	refs, err := g.remote.chunkRefs(c)
	if err != nil {
		return err
	}
	have := make([]bool, len(refs))
	ok, err := g.compareChunks(ctx, c, refs, have, buf)
	if err != nil {
		return err
	}
	if !ok {
		if !g.target.o.DryRun {
			if err := g.target.root.Remove(c.stageName()); err != nil {
				return err
			}
		}
		have = nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addWants(i, refs, have)
	if ok {
		g.exists[i] = struct{}{}
	}
	return nil
}

// compareChunks fills have. It returns false if the staged file cannot be used.
func (g *stager) compareChunks(ctx context.Context, c *change, refs []chunk.Ref, have []bool, buf []byte) (bool, error) {
	f, err := g.target.root.Open(c.stageName())
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if info, err := f.Stat(); err != nil || info.Size() != c.size {
		return false, err
	}
	var at int64
	for n, r := range refs {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		if !r.Hole() {
			b := buf[:r.Size]
			if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
			have[n] = !chunk.Zero(b) && g.remote.repo.Keys().ChunkID(b) == r.ID
		}
		at += r.Size
	}
	return true, nil
}

// findWants returns the range of g.wants with the id.
func (g *stager) findWants(id digest.Digest) (from, to int) {
	from, found := slices.BinarySearchFunc(g.wants, id, func(w want, id digest.Digest) int { return bytes.Compare(w.id[:], id[:]) })
	if !found {
		return 0, 0
	}
	to = from + 1
	for to < len(g.wants) && g.wants[to].id == id {
		to++
	}
	return from, to
}

// isWanted reports whether any place still lacks the chunk.
func (g *stager) isWanted(id digest.Digest) bool {
	from, to := g.findWants(id)
	if from == to {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := from; i < to; i++ {
		if !g.done[i] {
			return true
		}
	}
	return false
}

// neededBytes returns the bytes of content that are still wanted. It counts each chunk once.
func (g *stager) neededBytes() (bytes int64) {
	for i := range g.wants {
		if w := &g.wants[i]; !g.done[i] && (i == 0 || g.wants[i-1].id != w.id) {
			bytes += int64(w.size)
		}
	}
	return bytes
}

// lackingIDs returns the ids that are still wanted, each once.
func (g *stager) lackingIDs() []digest.Digest {
	ids := make([]digest.Digest, 0, g.lack) // growing the slice would hold a million ids twice
	for i := range g.wants {
		if w := &g.wants[i]; !g.done[i] && (len(ids) == 0 || ids[len(ids)-1] != w.id) {
			ids = append(ids, w.id)
		}
	}
	return ids
}
