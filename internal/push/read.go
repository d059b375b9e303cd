package push

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// item is one path of the source that becomes an entry.
type item struct {
	path    string
	stat    scan.Stat
	entry   manifest.Entry
	ready   bool            // reused from the stat cache, or a folder: nothing to read
	old     *manifest.Entry // entry in the stat cache, even if the file has changed since
	checked int64           // when its bytes were read, Unix seconds
	refs    []chunk.Ref
	reread  bool
	gone    bool // removed between the walk and the read: not part of the release
}

// task is a run of consecutive items: many small ones or one large file. Its reader sends groups, and the sequencer
// handles them in order.
type task struct {
	items  []*item
	bytes  int64 // to read
	groups chan *group
	err    error // set before groups is closed
}

// group is up to pack.MaxBlock bytes of consecutive chunks. A worker computes the chunks' ids, drops the chunks that a
// pack already contains, and compresses the rest.
type group struct {
	pieces []piece
	raw    []byte
	block  pack.Block
	err    error
	ready  chan struct{}
}

// piece is one chunk of an item.
type piece struct {
	it    *item
	ref   chunk.Ref // the worker fills in the id; a hole needs none
	off   int       // in raw
	alone bool      // the file's only chunk: its id may also be the file's digest
	reset bool      // the file changed while it was read: drop its pieces so far
}

const (
	maxTries     = 8 // attempts to read a file that changes or cannot be read, over six seconds
	firstWait    = 50 * time.Millisecond
	maxTaskItems = 1024 // entries decided together
	taskBytes    = pack.MaxBlock
)

// errUnstable means that a file changed each time it was read.
var errUnstable = errors.New("it changed each time it was read")

// errReplaced means that the name refers to a different file than before.
var errReplaced = errors.New("it was removed and made anew each time it was read")

// reader holds the buffers of one task's goroutine and is reused.
type reader struct {
	split *chunk.Splitter
	sum   hash.Hash
}

// taskReader reads the items of one task and sends their chunks in groups.
type taskReader struct {
	p *push
	*task
	buffers *reader
	group   *group // the one being filled
}

func (p *push) readTask(ctx context.Context, t *task, r *reader) error {
	tr := &taskReader{p: p, task: t, buffers: r, group: p.newGroup()}
	for _, it := range t.items {
		if it.ready {
			continue
		}
		if err := tr.readItem(ctx, it); err != nil {
			return err
		}
	}
	return tr.send(ctx)
}

// send hands the group to a worker and to the sequencer, and starts the next one.
func (r *taskReader) send(ctx context.Context) error {
	full := r.group
	r.p.crew.Go(func() error { r.p.compressGroup(full); return nil })
	select {
	case r.groups <- full:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.group = r.p.newGroup()
	return nil
}

// reserve makes room for a chunk and returns its offset in the group.
func (r *taskReader) reserve(ctx context.Context, size int) (off int, err error) {
	if len(r.group.raw)+size > pack.MaxBlock {
		err = r.send(ctx)
	}
	return len(r.group.raw), err
}

func (r *taskReader) add(pc piece) { r.group.pieces = append(r.group.pieces, pc) }

// readItem reads a file until it is unchanged before and after the read. It waits longer after each attempt: the file
// may be in the middle of a copy, or locked briefly by a writer.
func (r *taskReader) readItem(ctx context.Context, it *item) error {
	var births [2]int64 // creation times of the first and the last file with this name
	for try, wait := 1, firstWait; ; try, wait = try+1, 2*wait {
		birth, err := r.readOnce(ctx, it)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var of *fs.PathError
		if !errors.As(err, &of) {
			return err // from the store or this process
		}
		r.add(piece{it: it, reset: true})
		if births[1] = birth; try == 1 {
			births[0] = birth
		}
		if replaced := it.old == nil && births[0] != births[1] && min(births[0], births[1]) > 0; r.p.hasVanished(err) || try == maxTries && replaced {
			if replaced {
				r.p.emitEvent(Event{Path: it.path, Outcome: runs.FileSkipped, Cause: errReplaced.Error()})
			}
			it.gone = true
			return nil
		}
		if try == maxTries {
			return err
		}
		it.reread = true
		if err := sleepContext(ctx, wait); err != nil {
			return err
		}
	}
}

// hasVanished reports whether err means that a path was removed from the source, and that the source still exists.
func (p *push) hasVanished(err error) bool {
	if !scan.Vanished(err) {
		return false
	}
	_, err = p.root.Stat(".")
	return err == nil
}

func sleepContext(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readOnce reads a file from start to end and returns its creation time. The error is an *fs.PathError if the file
// cannot be read or changed during the read.
func (r *taskReader) readOnce(ctx context.Context, it *item) (birth int64, err error) {
	f, err := scan.OpenStill(r.p.root, it.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	before, err := scan.StatFile(f)
	if err != nil {
		return 0, err
	}
	if before.Kind != scan.File {
		return 0, &fs.PathError{Op: "read", Path: it.path, Err: errors.New("it is not a regular file any more")}
	}
	if err := sleepContext(ctx, hiddenChange(before.Stat, r.p.o.Now())); err != nil {
		return 0, err
	}
	size := before.Stat.Size
	it.checked = r.p.o.Now().Unix()
	it.entry = manifest.Entry{Path: it.path, Kind: manifest.File, Size: size, MTime: before.Stat.MTime, Mode: entryMode(it.stat, false)}
	var n int64
	defer func() {
		if err != nil { // it is read again, or left out of the release
			r.p.updateProgress(func(c *Progress) { c.Read -= n })
		}
	}()
	if size <= int64(r.p.r.Params().Min) {
		n, err = r.readSmall(ctx, it, f, int(size))
		r.p.updateProgress(func(c *Progress) { c.Read, c.Path = c.Read+n, it.path })
	} else {
		n, err = r.readLarge(ctx, it, f)
	}
	if err != nil {
		return before.Birth, err
	}
	after, err := scan.StatFile(f)
	if err == nil && (n != size || after != before) {
		err = &fs.PathError{Op: "read", Path: it.path, Err: errUnstable}
	}
	return before.Birth, err
}

// hiddenChange returns how long a further change of the file may still get its current time stamp, so that a comparison of
// time stamps would miss it. That is one tick of the kernel's clock, or two seconds if the file system may be FAT.
func hiddenChange(s scan.Stat, now time.Time) time.Duration {
	newest, grain := max(s.MTime, s.CTime), 20*time.Millisecond
	if newest%int64(2*time.Second) == 0 {
		grain = 2 * time.Second
	}
	if age := now.Sub(time.Unix(0, newest)); age >= 0 && age < grain {
		return grain - age
	}
	return 0 // older, or from another clock
}

// readSmall reads a file of one chunk directly into the group.
func (r *taskReader) readSmall(ctx context.Context, it *item, f io.Reader, size int) (int64, error) {
	if size == 0 {
		it.entry.Digest = digest.Of(nil)
		n, err := f.Read(make([]byte, 1))
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return int64(n), err
	}
	off, err := r.reserve(ctx, size)
	if err != nil {
		return 0, err
	}
	b := r.group.raw[off : off+size]
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return int64(n), nil // shorter than before: the caller notices
	}
	if err != nil {
		return int64(n), err
	}
	if chunk.Zero(b) {
		it.entry.Digest = digest.Of(b)
		r.add(piece{it: it, ref: chunk.Ref{Size: int64(size)}})
		return int64(n), nil
	}
	r.group.raw = r.group.raw[:off+size]
	r.add(piece{it: it, ref: chunk.Ref{Size: int64(size)}, off: off, alone: true})
	return int64(n), nil
}

// readLarge splits a file into chunks and computes the digest of the whole file.
func (r *taskReader) readLarge(ctx context.Context, it *item, f io.Reader) (n int64, err error) {
	r.buffers.sum.Reset()
	r.buffers.split.Reset(f)
	for {
		b, err := r.buffers.split.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		n += int64(len(b))
		r.p.updateProgress(func(c *Progress) { c.Read, c.Path = c.Read+int64(len(b)), it.path })
		r.buffers.sum.Write(b)
		pc := piece{it: it, ref: chunk.Ref{Size: int64(len(b))}}
		if !chunk.Zero(b) {
			if pc.off, err = r.reserve(ctx, len(b)); err != nil {
				return n, err
			}
			r.group.raw = append(r.group.raw, b...)
			pc.ref.ID = pending
		}
		r.add(pc)
	}
	r.buffers.sum.Sum(it.entry.Digest[:0])
	return n, nil
}

// pending marks a chunk whose id a worker has yet to compute. It differs from the zero id, which marks a hole.
var pending = digest.Digest{1}

// entryMode returns the permission bits for an entry. Windows has none, so files published from it get the usual ones.
func entryMode(s scan.Stat, dir bool) uint16 {
	if m := s.Mode & 0o777; m != 0 || runtime.GOOS != "windows" {
		return m
	}
	if dir {
		return 0o755
	}
	return 0o644
}

func (p *push) newGroup() *group {
	raw, _ := p.raws.Get().([]byte)
	if raw == nil {
		raw = make([]byte, 0, pack.MaxBlock)
	}
	return &group{raw: raw[:0], ready: make(chan struct{})}
}

// worker compresses groups; there is one per processor.
type worker struct {
	enc *zstd.Encoder
}

// compressGroup computes the ids of a group's chunks and compresses the new ones.
func (p *push) compressGroup(g *group) {
	defer close(g.ready)
	w := <-p.workers
	defer func() { p.workers <- w }()
	keep := 0
	for i := range g.pieces {
		pc := &g.pieces[i]
		if pc.reset || !pc.alone && pc.ref.Hole() {
			continue
		}
		b := g.raw[pc.off : pc.off+int(pc.ref.Size)]
		pc.ref.ID = p.r.Keys().ChunkID(b)
		if pc.alone {
			pc.it.entry.Digest = pc.ref.ID
			if p.r.Keys() != nil {
				pc.it.entry.Digest = digest.Of(b)
			}
		}
		fresh, err := p.store.claimChunk(pc.ref.ID)
		if err != nil {
			g.err = err
			return
		}
		if fresh {
			copy(g.raw[keep:], b)
			keep += len(b)
			g.block.Chunks = append(g.block.Chunks, pc.ref)
		}
	}
	if keep > 0 {
		buf, _ := p.payloads.Get().([]byte)
		g.block = pack.Compress(w.enc, buf[:0], g.raw[:keep], g.block.Chunks)
	}
	p.raws.Put(g.raw[:0]) //nolint:staticcheck // a slice header is small beside a MiB
	g.raw = nil
}

// finishItem converts an item's pieces into its entry.
func (p *push) finishItem(it *item) (err error) {
	if it.ready {
		return nil
	}
	e := &it.entry
	if it.refs == nil {
		return nil
	}
	plainSingle := len(it.refs) == 1 && it.refs[0].ID == e.Digest && e.Size <= chunk.MaxSize
	switch {
	case plainSingle:
	case len(it.refs) <= manifest.MaxInline:
		e.Chunks = it.refs
	default:
		e.Lists, err = manifest.CutLists(it.refs, p.store.addPage)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", it.path, err)
	}
	return nil
}

func newReader(p chunk.Params) (*reader, error) {
	s, err := chunk.NewSplitter(p)
	return &reader{split: s, sum: sha256.New()}, err
}
