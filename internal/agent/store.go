package agent

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/bucket"
)

// store is the content as a site sees it: read-only, through lent URLs, within
// the site's and the channel's rate.
type store struct {
	bucket.Store
	urls   *urls
	limits []*rate.Limiter
	moved  *atomic.Int64 // bytes that came
	date   func(store time.Time)
	reads  func(key string) // told of each object that is asked for; nil: nobody
	most   int64            // no more bytes than about so many; 0: any number
}

// openStore opens the enrolled store.
func openStore(c *session, u *urls, receive *bucket.Receive) (bucket.Store, error) {
	o := bucket.LentOptions{Env: c.o.Env, Host: c.id.Store, Lend: u.Lend, Receive: receive, Options: bucket.Options{UserAgent: "nightferry-agent/" + c.o.Version,
		// A run tries again by itself, so a request need not try for long.
		MaxAttempts: 6, MinBackoff: min(200*time.Millisecond, c.o.Retry),
		OnRetry: func(err error) { c.logNote(Info, "", "asking the store again", err) }}}
	return bucket.OpenLent(o)
}

// Prefetch is what package repo looks for.
func (s *store) Prefetch(ctx context.Context, keys []string) { s.urls.Prefetch(ctx, keys) }

// Reconnect is the store's own, if it has it.
func (s *store) Reconnect() {
	if r, ok := s.Store.(interface{ Reconnect() }); ok {
		r.Reconnect()
	}
}

func (s *store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	if s.reads != nil {
		s.reads(key)
	}
	if s.most > 0 && s.moved.Load() > s.most {
		return nil, bucket.Info{}, tooMuch(key)
	}
	body, info, err := s.Store.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	if !info.Date.IsZero() {
		s.date(info.Date)
	}
	return &paced{body, ctx, key, s.limits, s.moved}, info, nil
}

// piece bounds what may pass at once, in bytes.
const piece = 16 << 10

// newLimiter makes a limiter whose rate may change while bodies move; 0: none.
func newLimiter(bytesPerSecond int64) *rate.Limiter {
	l := rate.NewLimiter(rate.Inf, piece)
	setRate(l, bytesPerSecond)
	return l
}

func setRate(l *rate.Limiter, bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		l.SetLimit(rate.Inf)
	} else {
		l.SetLimit(rate.Limit(bytesPerSecond))
	}
}

// paced waits after each piece for as long as it should have taken.
type paced struct {
	io.ReadCloser
	ctx    context.Context
	key    string
	limits []*rate.Limiter
	moved  *atomic.Int64
}

func (p *paced) Read(b []byte) (int, error) {
	for _, l := range p.limits {
		if l.Limit() != rate.Inf {
			b = b[:min(len(b), piece)]
		}
	}
	n, err := p.ReadCloser.Read(b)
	p.moved.Add(int64(n))
	for _, l := range p.limits {
		for left := n; left > 0; left -= piece {
			if werr := l.WaitN(p.ctx, min(left, piece)); werr != nil {
				if cause := context.Cause(p.ctx); cause != nil {
					werr = cause
				}
				return n, &bucket.Error{Op: "get", Key: p.key, Kind: bucket.KindOther, Err: werr}
			}
		}
	}
	return n, err
}

// offset is how far another clock is ahead of ours, in milliseconds.
type offset struct {
	ms    atomic.Int64
	known atomic.Bool
}

func (o *offset) set(theirs, ours time.Time) {
	o.ms.Store(theirs.Sub(ours).Milliseconds())
	o.known.Store(true)
}

func (o *offset) get() time.Duration { return time.Duration(o.ms.Load()) * time.Millisecond }
