package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/commit"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
)

// stager makes the new files, each under its own name on the target's volume. It verifies every file before the
// commit may rename it into place.
type stager struct {
	target  *targetDir
	remote  *remote
	report  *reporter
	commit  *commit.Commit
	changes []change
	files   *handles
	check   chan check
	pipes   map[int32]*pipe // of large files; written only before the first chunk arrives

	wants []want // sorted by id; not written to while chunks arrive

	thin   map[int32]struct{} // files that are made sparse, because their holes are large enough
	filled int64              // bytes of holes in files that are not made sparse

	mu     sync.Mutex
	done   []bool             // of each want: it is written, or being written
	lack   int                // wants that are not done
	exists map[int32]struct{} // staged files that an earlier run or chunk has made
	bad    []int32            // files whose chunks are all right but whose digest is wrong

	filesDone, bytesDone   atomic.Int64
	filesTotal, bytesTotal int64

	progress  sync.Mutex   // orders progress events and the change of phase
	reading   atomic.Bool  // all is written: only the checkers still work
	bytesBack atomic.Int64 // read back by the checkers
	toBack    int64        // that they will read
}

// check requests that a file is read back: to its end if its last chunk was written, else as far as it is complete.
type check struct {
	change int32
	last   bool
}

// IntegrityError means that a file does not have the release's digest although each of its chunks is right. Either
// the release contradicts itself, or the target's disk does not return the bytes that were written.
type IntegrityError struct {
	Path string
	Want digest.Digest
}

func (e *IntegrityError) Error() string {
	return fmt.Sprintf("%q was fetched twice and does not have the digest %s that the release gives: check this machine's disk and memory, then run nightferry fsck --read-data STORE", e.Path, e.Want.Short())
}

// newStager finds the files to make, and the chunk-list pages that name their chunks.
func (s *site) newStager(changes []change) (g *stager, lacking []int32, lists []digest.Digest) {
	g = &stager{target: s.target, remote: s.remote, report: s.report, commit: s.commit, changes: changes, exists: map[int32]struct{}{}, pipes: map[int32]*pipe{}, thin: map[int32]struct{}{}}
	copies := map[digest.Digest]uint32{}
	for i := range changes {
		c := &changes[i]
		if c.state != stLacking || c.act != actPlace {
			continue
		}
		c.copy = copies[c.digest]
		copies[c.digest]++
		lacking = append(lacking, int32(i))
		g.bytesTotal += c.size
		if c.parts != nil {
			for _, l := range c.parts.lists {
				lists = append(lists, l.ID)
			}
		}
	}
	return g, lacking, lists
}

// stageFiles makes every new file. It returns when all are verified, or with an error. It drops changes that fail alone.
func (s *site) stageFiles(ctx context.Context, changes []change, oldLists []digest.Digest) error {
	g, lacking, lists := s.newStager(changes)
	if len(lacking) == 0 {
		return nil
	}
	s.report.emitPhase(PhaseStage)
	g.filesTotal = int64(len(lacking))
	if err := s.remote.repo.Manifests(s.remote.pages).Load(ctx, s.remote.loadIndex, lists, s.remote.fetchOptions()); err != nil {
		return err
	}
	staged, err := s.target.tidyStage(changes, lacking)
	if err != nil {
		return err
	}
	if err := g.listWants(ctx, lacking, staged); err != nil {
		return err
	}
	if s.o.DryRun {
		return g.estimateFetch(ctx, oldLists)
	}
	if err := s.checkSpace(g); err != nil {
		return err
	}
	g.emitProgress()
	for round := 0; ; round++ {
		if err := g.fillWants(ctx, lacking, oldLists); err != nil {
			return err
		}
		if len(g.bad) == 0 {
			return nil
		}
		// Every chunk was right when it was written, but the read-back differs. Make these files again, once.
		lacking, g.bad = g.bad, nil
		for _, i := range lacking {
			c := &changes[i]
			if round > 0 {
				c.state, c.out, c.cause = stDropped, runs.FileFailed, &IntegrityError{Path: c.path, Want: c.digest}
				continue
			}
			s.report.emitRetry(fmt.Errorf("%q does not read back as it was written: made again", c.path))
			delete(g.exists, i)
			if err := s.target.root.Remove(c.stageName()); err != nil {
				return err
			}
		}
		if round > 0 {
			return nil
		}
		g.reading.Store(false)
		s.report.emitPhase(PhaseStage)
		if err := g.listWants(ctx, lacking, nil); err != nil {
			return err
		}
	}
}

// tidyStage removes staged files of earlier runs that are no longer wanted, and makes the staging folders. It
// returns the names of the files that it kept.
func (t *targetDir) tidyStage(changes []change, lacking []int32) (map[string]struct{}, error) {
	staged, err := t.listStaged()
	if err != nil {
		return nil, err
	}
	keep := map[string]struct{}{}
	var shards [256]bool
	for _, i := range lacking {
		c := &changes[i]
		shards[c.digest[0]] = true
		if len(staged) == 0 {
			continue
		}
		if name := c.stageName(); contains(staged, name) {
			keep[name] = struct{}{}
		}
	}
	for name := range staged {
		if !contains(keep, name) && !t.o.DryRun {
			if err := t.discardStaged(name); err != nil {
				return nil, err
			}
		}
	}
	for n, used := range shards {
		if !used || t.o.DryRun {
			continue
		}
		if err := t.root.MkdirAll(fmt.Sprintf("%s/%02x", stageDir, n), 0o755); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

func contains(m map[string]struct{}, k string) bool { _, ok := m[k]; return ok }

// fillWants writes all wanted chunks: first from this machine, then from the store.
func (g *stager) fillWants(ctx context.Context, indexes []int32, oldLists []digest.Digest) error {
	g.files = newHandles(g.openStaged)
	g.check = make(chan check, 1024)
	checks, ctx := errgroup.WithContext(ctx)
	for range hashWorkers() {
		checks.Go(func() error { return g.checkFiles(ctx) })
	}
	g.toBack += g.backBytes(indexes)
	err := g.fetchChunks(ctx, indexes, oldLists)
	err = errors.Join(err, g.files.closeAll())
	close(g.check)
	if err == nil {
		g.startReadBack()
		g.emitProgress()
	}
	if cerr := checks.Wait(); cerr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = cerr // the cause of the cancellation
	}
	return err
}

// backBytes returns the bytes of the files that the checkers will read.
func (g *stager) backBytes(indexes []int32) (n int64) {
	for _, i := range indexes {
		if c := &g.changes[i]; c.parts != nil || c.chunksLeft == 0 {
			n += c.size
		}
	}
	return n
}

// countBack counts bytes that a checker has read.
func (g *stager) countBack(n int) {
	g.bytesBack.Add(int64(n))
	if g.reading.Load() {
		g.emitProgress()
	}
}

func (g *stager) fetchChunks(ctx context.Context, indexes []int32, oldLists []digest.Digest) error {
	for _, i := range indexes {
		if c := &g.changes[i]; c.chunksLeft == 0 { // empty, all holes, or staged by an earlier run
			if _, ok := g.exists[i]; !ok {
				f, err := g.openStaged(i)
				if err != nil {
					return err
				}
				if err := f.Close(); err != nil {
					return err
				}
			}
			if err := g.queueChecked(ctx, i); err != nil {
				return err
			}
		}
	}
	if err := g.seedLocal(ctx, oldLists); err != nil {
		return err
	}
	ids := g.lackingIDs()
	if len(ids) == 0 {
		return nil
	}
	g.report.res.BytesNeeded = max(g.report.res.BytesNeeded, g.neededBytes()) // a second round stages only the bad files
	x, err := g.remote.loadIndex(ctx)
	if err != nil {
		return err
	}
	places, missing, err := x.Locate(ctx, ids)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return g.nameMissing(&repo.MissingError{Chunks: missing})
	}
	err = x.Fetch(ctx, places, g.remote.fetchOptions(), func(ctx context.Context, b *repo.Block) error {
		for i, p := range b.Places {
			if err := g.deliverChunk(ctx, p.ID, b.Chunk(i), false); err != nil {
				return err
			}
		}
		g.emitProgress()
		return nil
	})
	if m := (*repo.MissingError)(nil); errors.As(err, &m) {
		return g.nameMissing(m)
	}
	return err
}

// nameMissing adds the path of a file that needs one of the missing chunks.
func (g *stager) nameMissing(err *repo.MissingError) error {
	for _, id := range err.Chunks {
		if from, to := g.findWants(id); from < to {
			return fmt.Errorf("stage %q: %w: push again from the Core, which fills the gap", g.changes[g.wants[from].change].path, err)
		}
	}
	return err
}

// deliverChunk writes a chunk to every place that wants it. The caller has checked its id. held means that the chunk was
// already on this machine.
func (g *stager) deliverChunk(ctx context.Context, id digest.Digest, b []byte, held bool) error {
	from, to := g.findWants(id)
	for n := from; n < to; n++ {
		w := g.wants[n]
		g.mu.Lock()
		claimed := !g.done[n]
		if claimed {
			g.done[n] = true
			g.lack--
		}
		g.mu.Unlock()
		if !claimed {
			continue
		}
		if int(w.size) != len(b) {
			return fmt.Errorf("stage %q: chunk %s has %d bytes, the release says %d: the release contradicts itself", g.changes[w.change].path, id.Short(), len(b), w.size)
		}
		if err := g.writeChunk(ctx, w, b, held); err != nil {
			return err
		}
	}
	return nil
}

func (g *stager) writeChunk(ctx context.Context, w want, b []byte, held bool) error {
	c := &g.changes[w.change]
	g.report.mu.Lock()
	g.report.res.BytesWritten += int64(len(b))
	if held {
		g.report.res.BytesHeld += int64(len(b))
	} else {
		g.report.res.BytesFetched += int64(len(b))
	}
	g.report.mu.Unlock()
	if held {
		atomic.AddInt64(&c.held, int64(len(b)))
	}
	g.bytesDone.Add(int64(len(b)))
	if held {
		g.emitProgress() // for fetched chunks, each block emits progress
	}
	if w.at == 0 && int64(w.size) == c.size {
		atomic.AddInt32(&c.chunksLeft, -1)
		return g.stageWhole(ctx, w.change, b)
	}
	f, err := g.files.openFile(w.change)
	if err != nil {
		return stageError(c, err)
	}
	if c.fresh {
		err = writeSparse(f, b, w.at)
	} else {
		_, err = f.WriteAt(b, w.at)
	}
	g.files.releaseFile(w.change)
	if err != nil {
		return stageError(c, err)
	}
	p := g.pipes[w.change]
	more := p != nil && p.markWritten(w.at)
	if atomic.AddInt32(&c.chunksLeft, -1) > 0 {
		if more {
			select {
			case g.check <- check{w.change, false}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}
	if err := g.files.closeFile(w.change); err != nil {
		return stageError(c, err)
	}
	return g.queueChecked(ctx, w.change)
}

// stageError adds the act and the path. If the disk is full, it adds the remedy.
func stageError(c *change, err error) error {
	if durable.IsDiskFull(err) {
		return fmt.Errorf("stage %q: disk full: free space on the target's volume and pull again, which goes on from here: %w", c.path, err)
	}
	return fmt.Errorf("stage %q: %w", c.path, err)
}

// openStaged opens the staged file. If the file is missing, open makes it at its full length; ranges that are never
// written stay holes.
func (g *stager) openStaged(i int32) (*durable.File, error) {
	c := &g.changes[i]
	g.mu.Lock()
	_, there := g.exists[i]
	if !there {
		g.exists[i] = struct{}{}
	}
	g.mu.Unlock()
	if there {
		return g.target.root.OpenRW(c.stageName())
	}
	f, err := durable.CreatePrivate(g.target.root, c.stageName(), c.size)
	if _, thin := g.thin[i]; thin && err == nil {
		err = f.SetSparse()
	}
	c.fresh = err == nil
	return f, err
}

// minHole is the shortest hole that is left unwritten. Shorter ones cost more in fragmentation than they save.
const (
	page    = 4 << 10
	minHole = 64 << 10
	// minThin is how many bytes of holes make a file sparse. Sparse files fragment,
	// and some programs refuse them.
	minThin = 1 << 20
)

// stageWhole stages a single-chunk file in one step. Most files have one chunk.
func (g *stager) stageWhole(ctx context.Context, i int32, b []byte) error {
	c := &g.changes[i]
	f, err := durable.CreatePrivate(g.target.root, c.stageName(), 0)
	if err != nil {
		return stageError(c, err)
	}
	same, err := g.writeWhole(c, f, b)
	if err := errors.Join(err, f.Close()); err != nil {
		return stageError(c, err)
	}
	if !same {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.bad = append(g.bad, i)
	}
	return nil
}

// writeWhole writes a file's bytes and reads them back. It reports whether they have the digest of the release, and
// finishes the file if they have.
func (g *stager) writeWhole(c *change, f *durable.File, b []byte) (same bool, err error) {
	if _, err := f.WriteAt(b, 0); err != nil {
		return false, err
	}
	if durable.NeedsFileSync(g.target.root) {
		if err := f.Sync(); err != nil {
			return false, err
		}
	}
	back := scratch.Get().(*[]byte)
	p := (*back)[:len(b)]
	_, err = f.ReadAt(p, 0)
	same = err == nil && digest.Of(p) == c.digest
	scratch.Put(back)
	if !same {
		return false, err
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	return true, g.finishFile(c, f, info)
}

// scratch holds buffers of readSize, one per staging goroutine, into which small files are read back.
var scratch = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// startReadBack changes the phase. No progress of the phase before is emitted after it.
func (g *stager) startReadBack() {
	g.progress.Lock()
	defer g.progress.Unlock()
	g.reading.Store(true)
	g.report.emitPhase(PhaseBack)
}

// emitProgress emits the state of the phase. Concurrent callers emit in the order in which they read the counters.
func (g *stager) emitProgress() {
	g.progress.Lock()
	defer g.progress.Unlock()
	e := Event{Kind: ProgressEvent, Phase: PhaseStage, FilesDone: g.filesDone.Load(), FilesTotal: g.filesTotal,
		BytesDone: g.bytesDone.Load(), BytesTotal: g.bytesTotal, Wire: g.remote.wire.Load()}
	if g.reading.Load() {
		e.Phase, e.BytesDone, e.BytesTotal = PhaseBack, g.bytesBack.Load(), g.toBack
	}
	g.report.mu.Lock()
	e.Fetched = g.report.res.BytesFetched
	g.report.mu.Unlock()
	g.report.emit(e)
}
