package main

import (
	"context"
	"io"
	"sync/atomic"

	"nightferry/internal/bucket"
)

// traffic is a store that counts: what a run costs is part of its answer.
// Retries below it are not seen.
type traffic struct {
	bucket.Store
	requests, got, sent atomic.Int64 // bytes of payload
}

// Reconnect is the store's own, if it has it.
func (t *traffic) Reconnect() {
	if s, ok := t.Store.(interface{ Reconnect() }); ok {
		s.Reconnect()
	}
}

func (t *traffic) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	t.requests.Add(1)
	rc, info, err := t.Store.Get(ctx, key, off, n)
	if err != nil {
		return nil, info, err
	}
	return &countedBody{rc, &t.got}, info, nil
}

func (t *traffic) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	t.requests.Add(1)
	info, err := t.Store.Put(ctx, key, body, cond)
	if err == nil {
		t.sent.Add(body.Size)
	}
	return info, err
}

func (t *traffic) Delete(ctx context.Context, key string) error {
	t.requests.Add(1)
	return t.Store.Delete(ctx, key)
}

func (t *traffic) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	t.requests.Add(1)
	return t.Store.List(ctx, prefix, fn)
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
