package collect

import (
	"context"
	"fmt"
	"sync"

	"nightferry/internal/chunk"
	"nightferry/internal/index"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
)

const (
	// repackRound bounds how many chunks are moved at a time, because their
	// places are kept in memory.
	repackRound = 400_000
	// A segment covers at most this much, as in a push.
	segmentBytes   = 1 << 30
	segmentRecords = 200_000

	// smallPack and smallChunks are half of what closes a pack. A pack below both is small.
	smallPack   = pack.TargetSize / 2
	smallChunks = pack.MaxChunks / 2
	// maxRepack bounds the needed bytes that one run moves. The next run continues.
	maxRepack = 4 << 30
)

// isSmall reports whether a needed pack is small.
func isSmall(pk index.Pack, u *packUse) bool {
	return u.live > 0 && pk.Size < smallPack && u.chunks < smallChunks
}

// addSmall adds the small packs to the victims, if there are enough of them, and limits the victims to maxRepack.
func (g *gc) addSmall(p *plan, small []uint32) {
	sparse := len(p.victims)
	if len(small) >= g.o.MinSmall {
		p.victims = append(p.victims, small...)
	}
	var bytes uint64
	for i, v := range p.victims {
		if bytes += p.use[v].liveRaw; i > 0 && bytes > maxRepack {
			g.rep.Postponed = int64(len(p.victims) - i)
			p.victims = p.victims[:i]
			break
		}
	}
	g.rep.Merged = int64(max(0, len(p.victims)-sparse))
}

// repackVictims copies the needed chunks of the plan's victims into new packs and
// indexes them there, so that the victims can be condemned.
func (g *gc) repackVictims(ctx context.Context, p *plan) error {
	for left := p.victims; len(left) > 0; {
		n, chunks := 0, int64(0)
		for n < len(left) && (n == 0 || chunks+p.use[left[n]].live <= repackRound) {
			chunks += p.use[left[n]].live
			n++
		}
		if err := g.moveChunks(ctx, left[:n], chunks); err != nil {
			return fmt.Errorf("repack: %w", err)
		}
		left = left[n:]
		g.emitEvent(Event{Phase: "repack", Done: int64(len(p.victims) - len(left)), Total: int64(len(p.victims))})
	}
	return nil
}

// moveChunks copies the needed chunks of some packs. Their number must be want.
func (g *gc) moveChunks(ctx context.Context, victims []uint32, want int64) error {
	from := map[uint32]bool{}
	for _, v := range victims {
		from[v] = true
	}
	var places []repo.Place
	c := cursor{l: g.live}
	x := g.x
	err := g.segs.Walk(ctx, x, func(all []repo.Place) error {
		if c.hasPrefix(idPrefix(all[0].ID)) {
			if s := servingPlace(x, all); from[s.Pack] {
				places = append(places, s)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m, done, err := newMover(g.r, g.segs)
	if err != nil {
		return err
	}
	defer done()
	err = x.Fetch(ctx, places, repo.FetchOptions{Connections: g.o.Connections}, m.addBlock)
	if err == nil {
		err = m.finish(ctx)
	}
	g.rep.RepackedBytes += m.bytes
	if err == nil && m.moved != want {
		// This also happens if pushes have merged segments since the sweep:
		// never condemn a pack while two counts differ.
		err = fmt.Errorf("%d chunks were moved, %d are needed: %w", m.moved, want, ErrBusy)
	}
	return err
}

// mover packs chunks anew.
type mover struct {
	r        *repo.Repo
	segs     *repo.Segments
	compress func(raw []byte, refs []chunk.Ref) pack.Block

	mu    sync.Mutex
	raw   []byte // chunks that are in no block yet
	refs  []chunk.Ref
	buf   []byte
	w     *pack.Writer
	batch repo.Batch
	moved int64
	bytes int64
}

// newMover returns a mover; done frees it.
func newMover(r *repo.Repo, segs *repo.Segments) (m *mover, done func(), err error) {
	enc, err := pack.NewEncoder()
	if err != nil {
		return nil, nil, err
	}
	compress := func(raw []byte, refs []chunk.Ref) pack.Block { return pack.Compress(enc, nil, raw, refs) }
	return &mover{r: r, segs: segs, compress: compress}, func() { _ = enc.Close() }, nil // it writes to no file
}

// addBlock takes the chunks of one block, from any goroutine.
func (m *mover) addBlock(ctx context.Context, b *repo.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range b.Places {
		raw := b.Chunk(i)
		if len(m.raw)+len(raw) > pack.MaxBlock || len(m.refs) >= pack.MaxChunks/4 {
			if err := m.flushBlock(ctx); err != nil {
				return err
			}
		}
		m.raw = append(m.raw, raw...)
		m.refs = append(m.refs, chunk.Ref{ID: p.ID, Size: int64(len(raw))})
		m.moved++
	}
	return nil
}

func (m *mover) flushBlock(ctx context.Context) (err error) {
	if len(m.refs) == 0 {
		return nil
	}
	if m.w == nil {
		if m.w, err = pack.NewWriter(m.r.Keys(), m.buf); err != nil {
			return err
		}
	}
	m.w.Add(m.compress(m.raw, m.refs))
	m.raw, m.refs = m.raw[:0], nil
	if m.w.Full() {
		return m.flushPack(ctx)
	}
	return nil
}

func (m *mover) flushPack(ctx context.Context) error {
	if m.w == nil {
		return nil
	}
	done, err := m.w.Finish()
	if err != nil {
		return err
	}
	m.w, m.buf = nil, done.Bytes
	if err := m.r.PutPack(ctx, done); err != nil {
		return err
	}
	m.bytes += int64(len(done.Bytes))
	m.batch.Add(done)
	if m.batch.Bytes() >= segmentBytes || m.batch.Records() >= segmentRecords {
		return m.flushSegment(ctx)
	}
	return nil
}

func (m *mover) flushSegment(ctx context.Context) error {
	if err := m.segs.AddSegment(ctx, &m.batch); err != nil {
		return err
	}
	m.batch = repo.Batch{}
	return nil
}

// finish stores the remaining chunks and indexes all of them.
func (m *mover) finish(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.flushBlock(ctx); err != nil {
		return err
	}
	if err := m.flushPack(ctx); err != nil {
		return err
	}
	return m.flushSegment(ctx)
}
