package bucket

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"nightferry/internal/digest"
)

// s3Store is a prefix of a bucket. One method call is one request, but for List (one per 1000 keys), retries, and the
// requests that resume a broken body.
type s3Store struct {
	client *s3.Client
	http   *http.Client
	bucket string
	prefix string // empty, or ends with a slash
	retry  retryOptions
}

// address is a parsed s3:// URL.
type address struct {
	bucket, prefix, region, endpoint string
	style                            string // "path" or "virtual"; empty: path where there is an endpoint
}

func parseS3(raw string) (address, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return address{}, errUnknownStore
	}
	a := address{bucket: u.Host, prefix: strings.Trim(u.Path, "/")}
	if u.User != nil {
		return a, errors.New("credentials do not belong into a store's URL")
	}
	if a.bucket == "" || u.Fragment != "" || u.Port() != "" {
		return a, errUnknownStore
	}
	if a.prefix != "" {
		if checkKey("open", a.prefix) != nil || path.Clean(a.prefix) != a.prefix {
			return a, fmt.Errorf("%w: the prefix %q", errBadKey, quoteKey(a.prefix))
		}
		a.prefix += "/"
	}
	for k, v := range u.Query() {
		switch k {
		case "region":
			a.region = v[0]
		case "endpoint":
			a.endpoint = strings.TrimSuffix(v[0], "/")
		case "style":
			if a.style = v[0]; a.style != "path" && a.style != "virtual" {
				return a, fmt.Errorf("style=%q: want path (the bucket's name in the path) or virtual (in the host name)", quoteKey(a.style))
			}
		default:
			return a, fmt.Errorf("unknown parameter %q, the known ones are region, endpoint and style", quoteKey(k))
		}
	}
	if a.endpoint != "" {
		e, err := url.Parse(a.endpoint)
		if err != nil || (e.Scheme != "http" && e.Scheme != "https") || e.Host == "" || e.User != nil || e.RawQuery != "" {
			return a, errors.New("the endpoint is not of the form https://HOST:PORT")
		}
	}
	return a, nil
}

// CheckS3 returns nil for an s3:// URL that Open understands. It checks only the text; its error never contains a
// credential.
func CheckS3(rawURL string) error {
	err := error(errUnknownStore)
	if strings.HasPrefix(rawURL, "s3://") {
		_, err = parseS3(rawURL)
	}
	if err != nil {
		return &Error{Op: "open", Key: redactURL(rawURL), Kind: KindOther, Err: err, Hint: hintS3}
	}
	return nil
}

func (s *s3Store) Put(ctx context.Context, key string, body Body, cond Cond) (Info, error) {
	if err := checkPut(ctx, key, body); err != nil {
		return Info{}, err
	}
	if _, err := body.R.Seek(0, io.SeekStart); err != nil {
		return Info{}, &Error{Op: "put", Key: key, Kind: KindOther, Err: fmt.Errorf("rewind the body: %w", err)}
	}
	in := &s3.PutObjectInput{
		Bucket: &s.bucket, Key: aws.String(s.prefix + key),
		Body: &putBody{r: body.R, size: body.Size}, ContentLength: &body.Size,
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(body.SHA256[:])),
		ContentType:    aws.String("application/octet-stream"),
	}
	if cond.Absent {
		in.IfNoneMatch = aws.String("*")
	}
	if cond.ETag != "" {
		in.IfMatch = &cond.ETag
	}
	retry := s.retry
	retry.keepsDamage = ctx.Value(damageKey{}) != nil
	out, err := s.client.PutObject(ctx, in, retry.retryerOf("put", key), payloadHash(body.SHA256))
	if err != nil {
		e := s3Error(ctx, "put", key, err)
		if e.Kind == KindNotExist && cond.ETag != "" {
			e.Kind, e.Err = KindPrecondition, errChanged // S3 answers so if the object to compare with is gone
		}
		return Info{}, e
	}
	date := serverTime(out.ResultMetadata)
	return Info{Key: key, Size: body.Size, ETag: aws.ToString(out.ETag), Modified: date, Date: date}, nil
}

// putBody turns a body that is shorter than declared into an error of ours. The transport would treat it as a broken
// connection and send it again and again. putBody also hides Close and WriteTo of its reader.
type putBody struct {
	r         io.ReadSeeker
	pos, size int64
}

func (b *putBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.pos += int64(n)
	if err == io.EOF && b.pos < b.size {
		err = &Error{Kind: KindIntegrity, Err: fmt.Errorf("%w: %d of %d bytes", errShort, b.pos, b.size)}
	} else if err != nil && err != io.EOF && KindOf(err) == KindOther {
		err = &Error{Kind: KindOther, Err: fmt.Errorf("read the body: %w", err)}
	}
	return n, err
}

func (b *putBody) Seek(off int64, whence int) (int64, error) {
	pos, err := b.r.Seek(off, whence)
	if err == nil {
		b.pos = pos
	}
	return pos, err
}

// payloadHash passes the known digest to the request's signature. Otherwise the SDK reads the body a second time over
// plain http, and leaves it out of the signature over https.
func payloadHash(d digest.Digest) func(*s3.Options) {
	return s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("nightferry:payload-hash",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(setPayloadHash(ctx, d), in)
			}), middleware.After)
	})
}

func (s *s3Store) Delete(ctx context.Context, key string) error {
	if err := checkKey("delete", key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key)}, s.retry.retryerOf("delete", key))
	if err != nil {
		if e := s3Error(ctx, "delete", key, err); e.Kind != KindNotExist {
			return e
		}
	}
	return nil
}

func (s *s3Store) List(ctx context.Context, prefix string, fn func(Info) error) error {
	if prefix != "" {
		if err := checkKey("list", strings.TrimSuffix(prefix, "/")); err != nil {
			return err
		}
	}
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + prefix)}
	last := ""
	for {
		out, err := s.client.ListObjectsV2(ctx, in, s.retry.retryerOf("list", prefix))
		if err != nil {
			return s3Error(ctx, "list", prefix, err)
		}
		date := serverTime(out.ResultMetadata)
		for _, o := range out.Contents {
			key, ours := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
			if !ours || checkKey("list", key) != nil {
				continue // an object of another program, such as the marker of a folder
			}
			if key <= last {
				return &Error{Op: "list", Key: prefix, Kind: KindIntegrity, Err: errors.New("the store lists keys out of order"),
					Hint: "use a general purpose bucket"}
			}
			last = key
			if err := fn(Info{Key: key, Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified), Date: date}); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		if aws.ToString(out.NextContinuationToken) == "" {
			return &Error{Op: "list", Key: prefix, Kind: KindIntegrity, Err: errors.New("the store cut the list short and gave no token to go on with")}
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

// Reconnect makes the next request use a new connection.
func (s *s3Store) Reconnect() { s.http.CloseIdleConnections() }

// Close closes idle connections.
func (s *s3Store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// serverTime returns the store's clock from the response, zero if it sent none.
func serverTime(m middleware.Metadata) time.Time {
	t, _ := awsmiddleware.GetServerTime(m)
	return t
}

// rangeHeader writes a Range as Store.Get means it; empty for the whole object.
func rangeHeader(off, n int64) string {
	switch {
	case off < 0:
		return "bytes=" + strconv.FormatInt(off, 10)
	case off == 0 && n < 0:
		return ""
	case n < 0:
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+n-1)
}
