package push

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
)

const (
	// A checkpoint indexes stored packs, so that the push after a killed one
	// continues from there.
	checkpointBytes   = 1 << 30
	checkpointRecords = 1 << 17
	// haltEvery is the interval between checks for halt orders.
	haltEvery = 10 * time.Second
)

// store collects blocks into packs and stores them. Content and manifest pages use separate packs, so that a site can
// read a release's pages in one range; the last blocks of both share a pack.
type store struct {
	p   *push
	enc *zstd.Encoder // for pages

	mu    sync.Mutex // known, fresh
	known *repo.Known
	fresh map[digest.Digest]struct{} // claimed since the last checkpoint

	w       *pack.Writer // current pack of content
	pageRaw []byte       // pages not yet in a block
	pageIDs []chunk.Ref
	pages   []pack.Block // blocks of pages not yet in a pack
	pageLen int

	uploads *errgroup.Group
	upctx   context.Context
	bufs    chan []byte // free pack buffers

	batchMu sync.Mutex
	batch   repo.Batch
	halted  time.Time // when the halt object was last read
}

func (p *push) newStore(ctx context.Context) (*store, error) {
	known, err := p.segs.Known(ctx, p.index)
	if err != nil {
		return nil, err
	}
	enc, err := pack.NewEncoder()
	if err != nil {
		return nil, err
	}
	n := p.o.Connections
	if n <= 0 {
		n = 3
	}
	s := &store{p: p, enc: enc, known: known, fresh: map[digest.Digest]struct{}{}, bufs: make(chan []byte, n+1), halted: p.o.Now()}
	for range n + 1 { // n are stored while one is filled
		s.bufs <- nil // allocated on first use
	}
	s.uploads, s.upctx = errgroup.WithContext(ctx)
	s.uploads.SetLimit(n)
	return s, nil
}

func (s *store) close() error {
	return errors.Join(s.enc.Close(), s.known.Close())
}

// hasChunk reports whether a chunk is stored or will be stored by this push.
func (s *store) hasChunk(id digest.Digest) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.fresh[id]; ok {
		return true, nil
	}
	return s.known.Has(id)
}

// claimChunk reports whether the caller has to store a chunk.
func (s *store) claimChunk(id digest.Digest) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.fresh[id]; ok {
		return false, nil
	}
	if ok, err := s.known.Has(id); ok || err != nil {
		return false, err
	}
	s.fresh[id] = struct{}{}
	return true, nil
}

// addBlock adds a block of content to the current pack. It returns an error if an upload failed or the run has ended.
// Otherwise the block would silently be lost.
func (s *store) addBlock(b pack.Block) error {
	if s.w == nil {
		var buf []byte
		select {
		case buf = <-s.bufs:
		case <-s.upctx.Done():
			return context.Cause(s.upctx)
		}
		if buf == nil {
			buf = make([]byte, 0, pack.TargetSize+2*pack.MaxStored)
		}
		var err error
		if s.w, err = pack.NewWriter(s.p.r.Keys(), buf); err != nil {
			return err
		}
	}
	s.w.Add(b)
	if s.w.Full() {
		s.flushPack()
	}
	return nil
}

// flushPack has the current pack stored, once fewer than Options.Connections others are being stored.
func (s *store) flushPack() {
	w := s.w
	if w == nil {
		return
	}
	s.w = nil
	s.uploads.Go(func() error {
		done, err := w.Finish()
		if err != nil {
			return err
		}
		if err := s.putPack(done); err != nil {
			return err
		}
		s.bufs <- done.Bytes[:0]
		return nil
	})
}

func (s *store) putPack(done pack.Finished) error {
	p := s.p
	if !p.o.DryRun {
		if err := s.checkHalt(s.upctx); err != nil {
			return err
		}
		if err := p.r.PutPack(s.upctx, done); err != nil {
			return fmt.Errorf("store a pack: %w", err)
		}
	}
	p.updateProgress(func(c *Progress) { c.Sent += int64(len(done.Bytes)) })
	s.batchMu.Lock()
	defer s.batchMu.Unlock()
	p.packs++
	s.batch.Add(done)
	if s.batch.Bytes() >= checkpointBytes || s.batch.Records() >= checkpointRecords {
		return s.indexStored(s.upctx)
	}
	return nil
}

// checkHalt checks, at most once per haltEvery, whether a halt order stops the push.
func (s *store) checkHalt(ctx context.Context) error {
	s.batchMu.Lock()
	defer s.batchMu.Unlock()
	now := s.p.o.Now()
	if now.Sub(s.halted) < haltEvery {
		return nil
	}
	if err := s.p.r.Halts().Check(ctx, s.p.o.Subject); err != nil {
		return err
	}
	s.halted = now
	return nil
}

// indexStored indexes the stored packs. The caller holds batchMu.
func (s *store) indexStored(ctx context.Context) error {
	if s.p.o.DryRun || s.batch.Records() == 0 {
		return nil
	}
	if err := s.p.segs.AddSegment(ctx, &s.batch); err != nil {
		return fmt.Errorf("add to the index: %w", err)
	}
	s.p.segments++
	x, err := s.p.r.Index(ctx)
	if err != nil {
		return err
	}
	known, err := s.p.segs.Known(ctx, x)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.batch.IDs() {
		delete(s.fresh, id)
	}
	s.batch = repo.Batch{}
	old := s.known
	s.known = known
	return old.Close()
}

// addPage adds a manifest or chunk-list page and returns its id.
func (s *store) addPage(b []byte) (digest.Digest, error) {
	id := s.p.r.Keys().ChunkID(b)
	fresh, err := s.claimChunk(id)
	if err != nil || !fresh {
		return id, err
	}
	if len(s.pageRaw)+len(b) > pack.MaxBlock {
		if err := s.pageBlock(); err != nil {
			return id, err
		}
	}
	s.pageRaw = append(s.pageRaw, b...)
	s.pageIDs = append(s.pageIDs, chunk.Ref{ID: id, Size: int64(len(b))})
	return id, nil
}

func (s *store) pageBlock() error {
	if len(s.pageIDs) == 0 {
		return nil
	}
	b := pack.Compress(s.enc, nil, s.pageRaw, s.pageIDs)
	s.pages = append(s.pages, b)
	s.pageLen += len(b.Payload) + 64
	s.pageRaw, s.pageIDs = s.pageRaw[:0], nil
	if s.pageLen < pack.TargetSize {
		return nil
	}
	return s.pagePack()
}

// pagePack puts the waiting blocks of pages into their own pack.
func (s *store) pagePack() error {
	content := s.w
	s.w = nil
	for _, b := range s.pages {
		if err := s.addBlock(b); err != nil {
			return err
		}
	}
	s.flushPack()
	s.pages, s.pageLen, s.w = nil, 0, content
	return nil
}

// finishStore stores all remaining data and indexes it. If the run was interrupted,
// it indexes the packs that are stored, within lastMoments.
func (s *store) finishStore(ctx context.Context) error {
	if ctx.Err() == nil {
		if err := s.flushRest(); err != nil {
			return errors.Join(err, s.uploads.Wait())
		}
	}
	err := s.uploads.Wait()
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastMoments)
		defer cancel()
	} else if err != nil {
		return err
	}
	s.batchMu.Lock()
	defer s.batchMu.Unlock()
	return errors.Join(err, s.indexStored(ctx))
}

// lastMoments is the time for an interrupted push to index its packs, so that the next push does not store them again.
const lastMoments = 5 * time.Second

// flushRest appends the waiting pages to the waiting content and stores both.
func (s *store) flushRest() error {
	if err := s.pageBlock(); err != nil {
		return err
	}
	if s.w != nil && s.w.Size()+s.pageLen > pack.TargetSize+4*pack.MaxStored {
		s.flushPack()
	}
	for _, b := range s.pages {
		if err := s.addBlock(b); err != nil {
			return err
		}
	}
	s.flushPack()
	return nil
}
