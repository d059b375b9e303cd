// Package bucket is the object store: an S3 bucket or a local directory behind one small interface.
//
// It implements put-if-absent, compare-and-swap, ranged reads, checksums on the wire, retries, rate limits and the
// texts of store errors. It does not know packs, manifests or trust: a key is a name and a body is bytes.
package bucket

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// Info describes an object, from a store's response.
type Info struct {
	Key string
	// Size is the length of the whole object in bytes, also in the answer to a ranged Get.
	Size int64
	// ETag changes when the object does; it is opaque and can only be compared. A directory store leaves it empty in
	// List, in a ranged Get, and in a Get of more than 8 MiB: there it would cost a read of the whole object.
	ETag string
	// Modified is when the object was last written, by the store's clock.
	Modified time.Time
	// Date is the store's own clock at the response. Grace periods are measured with it, never with the local clock.
	// A directory store returns the file system's time, after a Put and in a Get that has an ETag; zero if it may not
	// write.
	Date time.Time
}

// Body is the content for a Put. R is read from its current start (offset 0) and may be read again after a failed
// attempt. Put therefore rewinds it, and it must not change meanwhile.
type Body struct {
	R      io.ReadSeeker
	Size   int64         // bytes; at most 5 GiB, the bound of one S3 PUT
	SHA256 digest.Digest // of the Size bytes; the store refuses a body that does not match
}

// Bytes makes a Body of b, and hashes it.
func Bytes(b []byte) Body {
	return Body{R: bytes.NewReader(b), Size: int64(len(b)), SHA256: digest.Of(b)}
}

// Cond is the condition on the present object for a Put. The zero Cond always holds.
type Cond struct {
	Absent bool   // there must be no object under the key
	ETag   string // if not empty: the object must be there and have this ETag
}

// Store holds objects under slash-separated keys. All methods may be called from many goroutines.
//
// Every error is an *Error. An absent object is fs.ErrNotExist to errors.Is, a failed condition fs.ErrExist, a refusal
// fs.ErrPermission.
type Store interface {
	// Get reads n bytes from offset off. If n < 0, it reads to the end of the object. If off < 0, it reads the last
	// -off bytes (all of it, if it has fewer) and ignores n. A range that exceeds the object is a KindIntegrity
	// error, and so is a body that ends early: the reader never reports io.EOF before the promised length. n == 0 is
	// refused. The reader resumes after a broken connection by itself; its errors are *Error too.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error)
	// Put stores body under key, durably and whole, or not at all, if cond holds.
	//
	// If the first attempt of a conditional Put succeeded but its response was lost, Put tries again and then reports
	// a failed condition. A caller that must distinguish this reads the object back and compares.
	Put(ctx context.Context, key string, body Body, cond Cond) (Info, error)
	// Delete removes the object. A missing object is no error.
	Delete(ctx context.Context, key string) error
	// List calls fn for every object whose key starts with prefix, in byte order of the keys, until fn returns an error,
	// which List returns as it is.
	List(ctx context.Context, prefix string, fn func(Info) error) error
}

// Close releases resources of an opened store, such as a directory store's folder. It is needed only if the process
// continues and the folder is to be removed. A store with nothing to close is no error.
func Close(s Store) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Presigner is a store that can grant one read of one object to a client without credentials. Only S3 stores
// implement it.
type Presigner interface {
	// PresignGet returns a URL that any client may GET, with or without a Range header. It is valid from now for life
	// (1 s to 7 days) or until its credential expires, whichever is first; until is that time. now is the store's
	// time, as far as the caller knows it. The URL is a secret: never log it.
	PresignGet(ctx context.Context, key string, now time.Time, life time.Duration) (url string, until time.Time, err error)
}

// Options tune a store. The zero value is usable in production.
type Options struct {
	UserAgent string // added to the SDK's own, for the bucket's access log

	// AccessKey and SecretKey, if both are set, are used in place of the environment and the profile.
	AccessKey, SecretKey, SessionToken string

	HTTPClient  *http.Client  // in place of the tuned one, proxies and stall watch included; for tests
	MaxAttempts int           // of one request, the first included; 0: 8
	MinBackoff  time.Duration // before the second attempt, doubled for each further one, jittered; 0: 200 ms
	MaxBackoff  time.Duration // 0: 20 s
	Stall       time.Duration // a connection on which no byte moves for so long has failed; 0: 60 s
	OnRetry     func(error)   // called for each attempt that will be tried again; from many goroutines

	Create   bool             // a directory store makes its folder if it is missing
	Observer durable.Observer // sees a directory store's file operations; for tests
}

// Open opens the store that rawURL names:
//
//	s3://bucket/prefix?region=eu-west-1&endpoint=https://s3.example.com
//	file:///srv/store          file:///D:/store or file://server/share/store on Windows
//
// Credentials, region, profile and proxies of an S3 store come from the environment and the shared AWS files unless
// opts or the URL say otherwise. Nothing is requested of an S3 server yet: a wrong bucket shows at the first use.
func Open(ctx context.Context, rawURL string, opts Options) (Store, error) {
	scheme, _, ok := strings.Cut(rawURL, "://")
	switch {
	case ok && scheme == "s3":
		return openS3(ctx, rawURL, opts)
	case ok && scheme == "file":
		return openDir(rawURL, opts)
	}
	return nil, &Error{Op: "open", Key: redactURL(rawURL), Kind: KindOther, Err: errUnknownStore,
		Hint: "give s3://BUCKET/PREFIX?region=REGION or file:///DIR"}
}
