package testbed

import (
	"context"
	"io"
	"sync/atomic"

	"nightferry/internal/bucket"
)

// Counts are the numbers of calls to a store, and the payload bytes each way.
type Counts struct {
	Gets, Puts, Deletes, Lists int64
	Got, Sent                  int64 // bytes of bodies; a failed Put counts the bytes read of its body
}

// Requests is the number of calls of all kinds.
func (c Counts) Requests() int64 { return c.Gets + c.Puts + c.Deletes + c.Lists }

// Counter is a store that counts the calls to it. It does not see retries below it: see Wire for those.
type Counter struct {
	s                          bucket.Store
	gets, puts, deletes, lists atomic.Int64
	got, sent                  atomic.Int64
}

// Count wraps s.
func Count(s bucket.Store) *Counter { return &Counter{s: s} }

// Counts returns the counts so far.
func (c *Counter) Counts() Counts {
	return Counts{Gets: c.gets.Load(), Puts: c.puts.Load(), Deletes: c.deletes.Load(), Lists: c.lists.Load(), Got: c.got.Load(), Sent: c.sent.Load()}
}

// Reset sets the counts to zero and returns the previous ones.
func (c *Counter) Reset() Counts {
	return Counts{Gets: c.gets.Swap(0), Puts: c.puts.Swap(0), Deletes: c.deletes.Swap(0), Lists: c.lists.Swap(0), Got: c.got.Swap(0), Sent: c.sent.Swap(0)}
}

// Close closes the store below.
func (c *Counter) Close() error { return bucket.Close(c.s) }

// Get implements bucket.Store.
func (c *Counter) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	c.gets.Add(1)
	r, info, err := c.s.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	return CountBody(r, &c.got), info, nil
}

// Put implements bucket.Store.
func (c *Counter) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	c.puts.Add(1)
	body.R = &countedSeeker{body.R, &c.sent}
	return c.s.Put(ctx, key, body, cond)
}

// Delete implements bucket.Store.
func (c *Counter) Delete(ctx context.Context, key string) error {
	c.deletes.Add(1)
	return c.s.Delete(ctx, key)
}

// List implements bucket.Store.
func (c *Counter) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	c.lists.Add(1)
	return c.s.List(ctx, prefix, fn)
}

// CountBody adds the bytes read from r to n.
func CountBody(r io.ReadCloser, n *atomic.Int64) io.ReadCloser { return &countedBody{r, n} }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

type countedSeeker struct {
	io.ReadSeeker
	n *atomic.Int64
}

func (b *countedSeeker) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	b.n.Add(int64(n))
	return n, err
}
