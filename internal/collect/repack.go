package collect

import (
	"context"
	"fmt"
	"sync"

	"nightferry/internal/chunk"
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
)

// repack copies the needed chunks of the plan's victims into new packs and
// indexes them there, so that the victims can be condemned.
func (g *gc) repack(ctx context.Context, p *plan) error {
	for left := p.victims; len(left) > 0; {
		n, chunks := 0, int64(0)
		for n < len(left) && (n == 0 || chunks+p.use[left[n]].live <= repackRound) {
			chunks += p.use[left[n]].live
			n++
		}
		if err := g.move(ctx, left[:n], chunks); err != nil {
			return fmt.Errorf("repack: %w", err)
		}
		left = left[n:]
		g.event(Event{Phase: "repack", Done: int64(len(p.victims) - len(left)), Total: int64(len(p.victims))})
	}
	return nil
}

// move copies the needed chunks of some packs. Their number must be want.
func (g *gc) move(ctx context.Context, victims []uint32, want int64) error {
	from := map[uint32]bool{}
	for _, v := range victims {
		from[v] = true
	}
	var places []repo.Place
	c := cursor{l: g.live}
	x := g.x
	err := g.segs.Walk(ctx, x, func(all []repo.Place) error {
		if c.has(prefix(all[0].ID)) {
			if s := serving(x, all); from[s.Pack] {
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
	err = x.Fetch(ctx, places, repo.FetchOptions{Connections: g.o.Connections}, m.add)
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

// add takes the chunks of one block, from any goroutine.
func (m *mover) add(ctx context.Context, b *repo.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range b.Places {
		raw := b.Chunk(i)
		if len(m.raw)+len(raw) > pack.MaxBlock || len(m.refs) >= pack.MaxChunks/4 {
			if err := m.block(ctx); err != nil {
				return err
			}
		}
		m.raw = append(m.raw, raw...)
		m.refs = append(m.refs, chunk.Ref{ID: p.ID, Size: int64(len(raw))})
		m.moved++
	}
	return nil
}

func (m *mover) block(ctx context.Context) (err error) {
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
		return m.pack(ctx)
	}
	return nil
}

func (m *mover) pack(ctx context.Context) error {
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
		return m.segment(ctx)
	}
	return nil
}

func (m *mover) segment(ctx context.Context) error {
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
	if err := m.block(ctx); err != nil {
		return err
	}
	if err := m.pack(ctx); err != nil {
		return err
	}
	return m.segment(ctx)
}
