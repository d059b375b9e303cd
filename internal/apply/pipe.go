package apply

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sort"
	"sync"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
)

// pipeEvery is how many more bytes of a large file must stand one after
// another before they are read back.
const pipeEvery = 8 << 20

// pipe reads a large file back while the rest of it is still being written, so
// that its proof does not begin when everything else is over. Chunks come in
// any order; what is hashed is the file's beginning, as far as it is complete.
type pipe struct {
	reading sync.Mutex // guards h and at
	h       hash.Hash
	at      int64 // hashed up to here

	mu     sync.Mutex
	ends   []int64 // of each chunk and hole, bytes
	done   []bool
	next   int   // the first that is not done
	asked  int64 // how far somebody was asked to hash
	queued bool  // somebody was asked and has not begun
}

// newPipe returns nil for a file that is not worth it.
func newPipe(refs []chunk.Ref, have []bool) *pipe {
	if len(refs) <= 64 {
		return nil
	}
	p := &pipe{h: sha256.New(), ends: make([]int64, len(refs)), done: make([]bool, len(refs))}
	var at int64
	for i, r := range refs {
		at += r.Size
		p.ends[i] = at
		p.done[i] = r.Hole() || have != nil && have[i]
	}
	return p
}

// wrote takes note of the chunk at an offset, and reports whether somebody
// should read on.
func (p *pipe) wrote(at int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > at })] = true
	ready := p.ready()
	if p.queued || ready-p.asked < pipeEvery {
		return false
	}
	p.queued, p.asked = true, ready
	return true
}

// ready returns up to where the file is complete. The caller holds mu.
func (p *pipe) ready() int64 {
	for p.next < len(p.done) && p.done[p.next] {
		p.next++
	}
	if p.next == 0 {
		return 0
	}
	return p.ends[p.next-1]
}

// read hashes what is complete, or, with size ≥ 0, all that is left up to size.
func (p *pipe) read(ctx context.Context, f io.ReaderAt, size int64, buf []byte) error {
	p.mu.Lock()
	p.queued = false
	to := p.ready()
	p.mu.Unlock()
	if size >= 0 {
		to = size
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	for p.at < to {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b := buf[:min(int64(len(buf)), to-p.at)]
		if _, err := f.ReadAt(b, p.at); err != nil {
			return err
		}
		p.h.Write(b)
		p.at += int64(len(b))
	}
	return nil
}

// sum returns the digest of all that was read.
func (p *pipe) sum() (d digest.Digest) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.h.Sum(d[:0])
	return d
}
