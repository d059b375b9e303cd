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

	"github.com/klauspost/compress/zstd"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/scan"
)

// item is one path of the source on its way to an entry.
type item struct {
	path    string
	stat    scan.Stat
	entry   manifest.Entry
	ready   bool            // taken over from the stat cache, or a folder: nothing to read
	old     *manifest.Entry // what the stat cache knew, however the file looks now
	checked int64           // when its bytes were read, Unix seconds
	refs    []chunk.Ref
	reread  bool
}

// task is a run of consecutive items: many small ones, or one large file. Its
// reader sends groups; the sequencer takes them in order.
type task struct {
	items  []*item
	bytes  int64 // to read
	groups chan *group
	err    error // set before groups is closed
}

// group is up to pack.MaxBlock bytes of consecutive chunks. A worker names
// the chunks, keeps those that no pack holds, and compresses them.
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
	ref   chunk.Ref // the worker fills in the id; a hole comes as it is
	off   int       // in raw
	alone bool      // the file's only chunk: its id may serve as the file's digest
	reset bool      // the file changed while it was read: forget its pieces so far
}

const (
	maxTries     = 3    // readings of a file that changes
	maxTaskItems = 1024 // entries decided together
	taskBytes    = pack.MaxBlock
)

// errUnstable says that a file changed whenever it was read.
var errUnstable = errors.New("it changed each time it was read")

// reader is what one task's goroutine needs; readers are reused.
type reader struct {
	split *chunk.Splitter
	sum   hash.Hash
}

// read reads the items of a task and sends their chunks in groups.
func (p *push) read(ctx context.Context, t *task, r *reader) error {
	g := p.newGroup()
	send := func() error {
		full := g
		p.crew.Go(func() error { p.work(full); return nil })
		select {
		case t.groups <- full:
		case <-ctx.Done():
			return ctx.Err()
		}
		g = p.newGroup()
		return nil
	}
	for _, it := range t.items {
		if it.ready {
			continue
		}
		if err := p.readItem(ctx, it, r, &g, send); err != nil {
			return err
		}
	}
	return send()
}

func (p *push) readItem(ctx context.Context, it *item, r *reader, g **group, send func() error) error {
	for try := 1; ; try++ {
		stable, err := p.readOnce(ctx, it, r, g, send)
		if err != nil {
			return err
		}
		if stable {
			return nil
		}
		if try == maxTries {
			return &fs.PathError{Op: "read", Path: it.path, Err: errUnstable}
		}
		it.reread = true
		(*g).pieces = append((*g).pieces, piece{it: it, reset: true})
	}
}

// readOnce reads a file from its start to its end, and reports whether it was
// the same file before and after.
func (p *push) readOnce(ctx context.Context, it *item, r *reader, g **group, send func() error) (bool, error) {
	f, err := scan.Open(p.root, it.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !before.Mode().IsRegular() {
		return false, &fs.PathError{Op: "read", Path: it.path, Err: errors.New("it is not a regular file any more")}
	}
	size := before.Size()
	it.checked = p.o.Now().Unix()
	it.entry = manifest.Entry{Path: it.path, Kind: manifest.File, Size: size, MTime: before.ModTime().UnixNano(), Mode: mode(it.stat, false)}
	var n int64
	if size <= int64(p.r.Params().Min) {
		n, err = p.readSmall(it, f, int(size), g, send)
	} else {
		n, err = p.readLarge(ctx, it, f, r, g, send)
	}
	if err != nil {
		return false, err
	}
	p.count(func(c *Progress) { c.Read += n })
	after, err := f.Stat()
	if err != nil {
		return false, err
	}
	return n == size && after.Size() == size && after.ModTime().Equal(before.ModTime()), nil
}

// readSmall reads a file of one chunk straight into the group.
func (p *push) readSmall(it *item, f io.Reader, size int, g **group, send func() error) (int64, error) {
	if size == 0 {
		it.entry.Digest = digest.Of(nil)
		n, err := f.Read(make([]byte, 1))
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return int64(n), err
	}
	if len((*g).raw)+size > pack.MaxBlock {
		if err := send(); err != nil {
			return 0, err
		}
	}
	off := len((*g).raw)
	b := (*g).raw[off : off+size]
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return int64(n), nil // shorter than it was: the caller sees it
	}
	if err != nil {
		return int64(n), err
	}
	if chunk.Zero(b) {
		it.entry.Digest = digest.Of(b)
		(*g).pieces = append((*g).pieces, piece{it: it, ref: chunk.Ref{Size: int64(size)}})
		return int64(n), nil
	}
	(*g).raw = (*g).raw[:off+size]
	(*g).pieces = append((*g).pieces, piece{it: it, ref: chunk.Ref{Size: int64(size)}, off: off, alone: true})
	return int64(n), nil
}

// readLarge cuts a file into chunks and hashes it as a whole on the way.
func (p *push) readLarge(ctx context.Context, it *item, f io.Reader, r *reader, g **group, send func() error) (n int64, err error) {
	r.sum.Reset()
	r.split.Reset(f)
	for {
		b, err := r.split.Next()
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
		r.sum.Write(b)
		pc := piece{it: it, ref: chunk.Ref{Size: int64(len(b))}}
		if !chunk.Zero(b) {
			if len((*g).raw)+len(b) > pack.MaxBlock {
				if err := send(); err != nil {
					return n, err
				}
			}
			pc.off = len((*g).raw)
			(*g).raw = append((*g).raw, b...)
			pc.ref.ID = pending
		}
		(*g).pieces = append((*g).pieces, pc)
	}
	r.sum.Sum(it.entry.Digest[:0])
	return n, nil
}

// pending marks a chunk whose id a worker has yet to compute: anything but
// the zero id, which is a hole.
var pending = digest.Digest{1}

// mode returns the permission bits that an entry carries. Windows has none:
// what it publishes gets the usual ones.
func mode(s scan.Stat, dir bool) uint16 {
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

// worker compresses; there is one for each processor.
type worker struct {
	enc *zstd.Encoder
}

// work names a group's chunks, keeps the new ones and compresses them.
func (p *push) work(g *group) {
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
		fresh, err := p.store.claim(pc.ref.ID)
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

// finish turns an item's pieces into its entry.
func (p *push) finish(it *item) (err error) {
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
		e.Lists, err = manifest.CutLists(it.refs, p.store.page)
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
