package bucket

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// limitBurst bounds the bytes that may pass at once: small, so that a slow line is never flooded for long.
const limitBurst = 64 << 10

// Limit makes all bodies of s together, both ways, move at most bytesPerSecond. Zero or less means no limit, and
// returns s itself. Only payload counts: headers and retransmissions, a few per cent, come on top.
//
// The result is a Presigner if s is, and its Close closes s.
func Limit(s Store, bytesPerSecond int64) Store {
	if bytesPerSecond <= 0 {
		return s
	}
	// Pieces of a tenth of a second, so that many bodies share a low rate fairly and none waits long for its turn.
	piece := int(min(limitBurst, max(1, bytesPerSecond/10)))
	l := &limited{s: s, piece: piece, lim: rate.NewLimiter(rate.Limit(bytesPerSecond), piece)}
	if p, ok := s.(Presigner); ok {
		return struct {
			*limited
			Presigner
		}{l, p}
	}
	return l
}

type limited struct {
	s     Store
	piece int
	lim   *rate.Limiter
}

func (l *limited) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error) {
	rc, info, err := l.s.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	return &limitedBody{limitedReader{ctx, l, rc, "get", key}, rc}, info, nil
}

func (l *limited) Put(ctx context.Context, key string, body Body, cond Cond) (Info, error) {
	if body.R != nil {
		body.R = &limitedSeeker{limitedReader{ctx, l, body.R, "put", key}, body.R}
	}
	return l.s.Put(ctx, key, body, cond)
}

func (l *limited) Delete(ctx context.Context, key string) error { return l.s.Delete(ctx, key) }

// Close closes the store below, if it can be closed.
func (l *limited) Close() error { return Close(l.s) }

func (l *limited) List(ctx context.Context, prefix string, fn func(Info) error) error {
	return l.s.List(ctx, prefix, fn)
}

// limitedReader waits after each piece for as long as the piece should have taken. Waiting afterwards, and only for
// the bytes that really arrived, keeps the rate exact even for short reads.
type limitedReader struct {
	ctx context.Context
	l   *limited
	r   io.Reader
	op  string
	key string
}

func (r *limitedReader) Read(p []byte) (int, error) {
	if len(p) > r.l.piece {
		p = p[:r.l.piece]
	}
	n, err := r.r.Read(p)
	if n > 0 {
		if werr := r.l.lim.WaitN(r.ctx, n); werr != nil {
			if cerr := r.ctx.Err(); cerr != nil {
				werr = cerr
			}
			return n, &Error{Op: r.op, Key: r.key, Kind: KindOther, Err: werr}
		}
	}
	return n, err
}

type limitedBody struct {
	limitedReader
	io.Closer
}

type limitedSeeker struct {
	limitedReader
	s io.Seeker
}

func (s *limitedSeeker) Seek(off int64, whence int) (int64, error) { return s.s.Seek(off, whence) }
