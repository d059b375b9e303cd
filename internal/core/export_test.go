package core

import (
	"context"
	"io"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// StoreAhead makes the store's clock show so much more than it does: in the date of each answer, and as the time of
// each object since it was written.
func (o *Options) StoreAhead(by func() time.Duration) {
	written := &sync.Map{} // time.Duration by key
	o.wrapStore = func(s bucket.Store) bucket.Store { return &aheadStore{s, by, written} }
}

// Ahead returns a store with the clock that StoreAhead has set.
func (o *Options) Ahead(s bucket.Store) bucket.Store { return o.wrapStore(s) }

type aheadStore struct {
	bucket.Store
	by      func() time.Duration
	written *sync.Map
}

func (s *aheadStore) Close() error { return bucket.Close(s.Store) }

func (s *aheadStore) moved(i bucket.Info) bucket.Info {
	i.Date = i.Date.Add(s.by())
	if by, ok := s.written.Load(i.Key); ok && !i.Modified.IsZero() {
		i.Modified = i.Modified.Add(by.(time.Duration))
	}
	return i
}

func (s *aheadStore) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	body, info, err := s.Store.Get(ctx, key, off, n)
	return body, s.moved(info), err
}

func (s *aheadStore) Put(ctx context.Context, key string, b bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	info, err := s.Store.Put(ctx, key, b, cond)
	if err == nil {
		s.written.Store(key, s.by())
	}
	return s.moved(info), err
}

func (s *aheadStore) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	return s.Store.List(ctx, prefix, func(i bucket.Info) error { return fn(s.moved(i)) })
}

// CloseOwnRuns ends the runs that the process before left open.
func (c *Core) CloseOwnRuns(ctx context.Context) error { return c.Publisher.closeOwnRuns(ctx) }

// UpkeepNow is what happens each hour.
func (c *Core) UpkeepNow(ctx context.Context) { _ = c.Upkeep.runDaily(ctx) } // told as its trouble

// PagesRead is how many pages it takes to name those entries in one report.
func (c *Core) PagesRead(ctx context.Context, channel string, number trust.ReleaseNumber, release trust.ReleaseDigest, ordinals []uint64) (int, error) {
	f := c.releases.Finder()
	for _, n := range ordinals {
		if _, err := f.Entry(ctx, releases.Key{Channel: channel, Number: number, Digest: release}, n); err != nil {
			return f.Pages(), err
		}
	}
	return f.Pages(), nil
}

// Exceptions lists what of a run was told not to be as it should.
func (c *Core) Exceptions(ctx context.Context, id ledger.RunID) ([]ledger.Exception, error) {
	return c.ledger.Exceptions(ctx, ledger.Filter{Run: id, Limit: 1 << 20})
}

// Guard is what a message that panics meets.
func (c *Core) Guard(from wire.Address, verb string, handle func()) {
	c.guardPanic(message{from: from, verb: verb}, handle)
}

// LinesWithin are the lines of a run's log, where most bytes of texts are held.
func (c *Core) LinesWithin(ctx context.Context, id ledger.RunID, most int) (lines []record.File, err error) {
	run, err := c.ledger.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return lines, c.renderer.LinesWithin(ctx, &run, false, most, func(f record.File) error {
		lines = append(lines, f)
		return nil
	})
}

// WindowOverdue tells what noteStale does of windows.
var WindowOverdue = isOverdue

// Fail puts a Core that was opened but does not run into every state that Health reports.
func (c *Core) Fail(text string) error {
	c.notices.full.Store(true)
	c.incidents.Raise(kinds.Store, "", wire.Address{}, text)
	return c.ledger.Close()
}

// Strangers returns the text about credentials with these names.
func Strangers(names ...string) (text string) {
	var s strangers
	for _, n := range names {
		text = s.note(n, time.Now())
	}
	return text
}
