package bucket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func (s *s3Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error) {
	return getFrom(ctx, s, s.retry, key, off, n)
}

// getter makes one request for a range, which it may try several times.
type getter interface {
	get(ctx context.Context, key, rng, etag string) (*s3.GetObjectOutput, error)
}

// getFrom is Store.Get by requests of S3's form.
func getFrom(ctx context.Context, g getter, retry retryOptions, key string, off, n int64) (io.ReadCloser, Info, error) {
	if err := checkGet(ctx, key, n, off); err != nil {
		return nil, Info{}, err
	}
	out, err := g.get(ctx, key, rangeHeader(off, n), "")
	if err != nil {
		if off < 0 && isUnsatisfiable(err) { // the last bytes of an empty object are empty, but S3 returns an error
			return io.NopCloser(bytes.NewReader(nil)), Info{Key: key}, nil
		}
		if isUnsatisfiable(err) {
			return nil, Info{}, &Error{Op: "get", Key: key, Kind: KindIntegrity, Err: fmt.Errorf("%w: from byte %d on", errRange, off)}
		}
		return nil, Info{}, s3Error(ctx, "get", key, err)
	}
	info, first, length, err := checkRange(key, off, n, out)
	if err != nil {
		out.Body.Close()
		return nil, Info{}, err
	}
	return &s3Body{g: g, retry: retry, ctx: ctx, key: key, etag: info.ETag, pos: first, end: first + length, r: out.Body}, info, nil
}

func (s *s3Store) get(ctx context.Context, key, rng, etag string) (*s3.GetObjectOutput, error) {
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key)}
	if rng != "" {
		in.Range = &rng
	}
	if etag != "" {
		in.IfMatch = &etag
	}
	return s.client.GetObject(ctx, in, s.retry.retryerOf("get", key))
}

const proxyHint = "a proxy or cache on the way does not honour ranges"

// checkRange checks that the store sends the requested range. A server or cache that ignores Range would otherwise
// deliver bytes of another place. Such a response does not prove damage of the object.
func checkRange(key string, off, n int64, out *s3.GetObjectOutput) (info Info, first, length int64, err error) {
	info = Info{Key: key, ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified), Date: serverTime(out.ResultMetadata)}
	if info.Date.IsZero() {
		info.Date = lentDate(out.ResultMetadata)
	}
	sent := aws.ToInt64(out.ContentLength)
	if out.ContentLength == nil || sent < 0 {
		return info, 0, 0, &Error{Op: "get", Key: key, Kind: KindUnreachable, Err: fmt.Errorf("the store did not say how long the body is"), Hint: proxyHint}
	}
	start := int64(0)
	if cr := aws.ToString(out.ContentRange); cr != "" && sent > 0 { // MinIO says "bytes 0--1/0" of an empty object
		var end int64
		if start, end, info.Size, err = parseContentRange(cr); err != nil || end-start+1 != sent {
			return info, 0, 0, &Error{Op: "get", Key: key, Kind: KindUnreachable, Err: fmt.Errorf("the store answered with the range %q and %d bytes", cr, sent), Hint: proxyHint}
		}
	} else {
		info.Size = sent
	}
	first, length, err = resolveRange(info.Size, off, n)
	if err != nil {
		return info, 0, 0, rangeError(key, info.Size, off, n)
	}
	if first != start || length != sent {
		return info, 0, 0, &Error{Op: "get", Key: key, Kind: KindUnreachable,
			Err:  fmt.Errorf("asked for %d bytes from byte %d on, got %d from byte %d on", length, first, sent, start),
			Hint: proxyHint}
	}
	return info, first, length, nil
}

// parseContentRange reads "bytes 5-9/10".
func parseContentRange(s string) (first, last, size int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, fmt.Errorf("content range %q", s)
	}
	for _, f := range []struct {
		text string
		to   *int64
	}{{a, &first}, {b, &last}, {total, &size}} {
		v, err := strconv.ParseUint(f.text, 10, 63)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("content range %q: %w", s, err)
		}
		*f.to = int64(v)
	}
	return first, last, size, nil
}

// s3Body reads a range of an object. If the connection breaks, it requests the rest, on the condition that the object
// has not changed.
type s3Body struct {
	g        getter
	retry    retryOptions
	ctx      context.Context
	key      string
	etag     string
	pos, end int64 // in the object
	r        io.ReadCloser
	broken   error // why r is nil
	idle     int   // breaks in a row that brought no byte
}

func (b *s3Body) Read(p []byte) (int, error) {
	if b.pos == b.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), b.end-b.pos)]
	for {
		if b.r == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.r.Read(p)
		b.pos += int64(n)
		if n > 0 {
			b.idle = 0
		}
		if err != nil && b.pos < b.end {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			b.r.Close()
			b.r, b.broken = nil, err
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
}

// reopen waits and requests the rest. The SDK retries the request itself; reopen counts responses whose body brings
// nothing.
func (b *s3Body) reopen() error {
	cause := s3Error(b.ctx, "get", b.key, b.broken)
	b.idle++
	if b.ctx.Err() != nil {
		return cause
	}
	if b.idle >= b.retry.attempts || b.etag == "" {
		// The kind stays: the line is broken, which proves nothing about the
		// object.
		cause.Err = fmt.Errorf("%w: %d bytes are missing after %d tries: %w", errShort, b.end-b.pos, b.idle, cause.Err)
		if cause.Hint == "" {
			cause.Hint = "run again: what arrived is kept"
		}
		return cause
	}
	b.retry.notifyRetry(cause)
	if err := sleep(b.ctx, b.retry.retryDelay(b.idle)); err != nil {
		return s3Error(b.ctx, "get", b.key, err)
	}
	out, err := b.g.get(b.ctx, b.key, rangeHeader(b.pos, b.end-b.pos), b.etag)
	if err != nil {
		e := s3Error(b.ctx, "get", b.key, err)
		if e.Kind == KindPrecondition {
			e.Kind, e.Err, e.Hint = KindIntegrity, fmt.Errorf("while it was read: %w", errChanged), "run again"
		}
		return e
	}
	info, _, _, err := checkRange(b.key, b.pos, b.end-b.pos, out)
	if err == nil && info.ETag != b.etag {
		err = &Error{Op: "get", Key: b.key, Kind: KindIntegrity, Err: fmt.Errorf("while it was read: %w", errChanged), Hint: "run again"}
	}
	if err != nil {
		out.Body.Close()
		return err
	}
	b.r, b.broken = out.Body, nil
	return nil
}

func (b *s3Body) Close() error {
	if b.r == nil {
		return nil
	}
	err := b.r.Close()
	b.r, b.broken = nil, io.ErrClosedPipe
	b.etag = "" // a read after Close must not open a connection again
	return err
}
