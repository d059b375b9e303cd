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

// pipeEvery is the number of further contiguous bytes of a large file that triggers the next read-back.
const pipeEvery = 8 << 20

// pipe reads a large file back while the rest is still being written, so that most of its verification is done when
// the last chunk arrives. Chunks arrive in any order; only the contiguous complete start of the file is hashed.
type pipe struct {
	reading sync.Mutex // guards h and at
	h       hash.Hash
	at      int64 // hashed up to here

	mu     sync.Mutex
	ends   []int64 // of each chunk and hole, bytes
	done   []bool
	next   int   // index of the first chunk that is not done
	asked  int64 // offset up to which hashing was requested
	queued bool  // a read was requested and has not started
}

// newPipe returns nil if the file has too few chunks for a pipe to pay.
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

// markWritten marks the chunk at an offset as written and reports whether the caller should request a read.
func (p *pipe) markWritten(at int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > at })] = true
	ready := p.readyUpTo()
	if p.queued || ready-p.asked < pipeEvery {
		return false
	}
	p.queued, p.asked = true, ready
	return true
}

// readyUpTo returns the offset up to which the file is complete. The caller holds mu.
func (p *pipe) readyUpTo() int64 {
	for p.next < len(p.done) && p.done[p.next] {
		p.next++
	}
	if p.next == 0 {
		return 0
	}
	return p.ends[p.next-1]
}

// hashReady hashes the complete part of the file, or, if size ≥ 0, everything up to size. It calls count with the number
// of bytes of each read.
func (p *pipe) hashReady(ctx context.Context, f io.ReaderAt, size int64, buf []byte, count func(int)) error {
	p.mu.Lock()
	p.queued = false
	to := p.readyUpTo()
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
		count(len(b))
	}
	return nil
}

// sum returns the digest of all bytes read.
func (p *pipe) sum() (d digest.Digest) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.h.Sum(d[:0])
	return d
}
