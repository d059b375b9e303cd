// Package bucket is the store that objects live in: an S3 bucket or a local directory behind one small interface.
//
// It owns put-if-absent, compare-and-swap, ranged reads, checksums on the wire, retries, rate limits and the texts of
// store errors. It knows nothing of packs, manifests or trust: a key is a name and a body is bytes.
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

// Info describes an object as the store answered.
type Info struct {
	Key string
	// Size is the length of the whole object in bytes, also in the answer to a ranged Get.
	Size int64
	// ETag changes when the object does; it is opaque but for equality. A directory store leaves it empty in List, in a
	// ranged Get, and in a Get of more than 8 MiB: there it would cost a read of the whole object.
	ETag string
	// Modified is when the object was last written, by the store's clock.
	Modified time.Time
	// Date is the store's own clock when it answered. Grace periods are measured with it, never with ours. A directory
	// store gives that of the file system, after a Put and in a Get that has an ETag; zero where it may not write.
	Date time.Time
}

// Body is what Put stores. R is read from its current start (offset 0) and may be read again after a failed attempt, so
// it is rewound by Put and must not change meanwhile.
type Body struct {
	R      io.ReadSeeker
	Size   int64         // bytes; at most 5 GiB, the bound of one S3 PUT
	SHA256 digest.Digest // of the Size bytes; the store refuses a body that does not match
}

// Bytes makes a Body of b, and hashes it.
func Bytes(b []byte) Body {
	return Body{R: bytes.NewReader(b), Size: int64(len(b)), SHA256: digest.Of(b)}
}

// Cond is what must hold of the present object for a Put to happen. The zero Cond always holds.
type Cond struct {
	Absent bool   // there must be no object under the key
	ETag   string // if not empty: the object must be there and have this ETag
}

// Store holds objects under slash-separated keys. All methods may be called from many goroutines.
//
// Every error is an *Error. An absent object is fs.ErrNotExist to errors.Is, a failed condition fs.ErrExist, a refusal
// fs.ErrPermission.
type Store interface {
	// Get reads n bytes from offset off; n < 0 reads to the end of the object, and off < 0 the last -off bytes (all of
	// it, if it has fewer; n is not looked at then). A range that the object does not hold in full is a KindIntegrity
	// error, and so is a body that ends early: the reader never reports io.EOF before the promised length. n == 0 is
	// refused. The reader resumes after a broken connection by itself; its errors are *Error too.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error)
	// Put stores body under key, durably and whole, or not at all, if cond holds.
	//
	// A conditional Put whose first attempt was carried out, but whose answer was lost, is tried again and then reports
	// that its own condition failed. Whoever needs to know reads the object back and compares.
	Put(ctx context.Context, key string, body Body, cond Cond) (Info, error)
	// Delete removes the object. That it was not there is no error.
	Delete(ctx context.Context, key string) error
	// List calls fn for every object whose key starts with prefix, in byte order of the keys, until fn returns an error,
	// which List returns as it is.
	List(ctx context.Context, prefix string, fn func(Info) error) error
}

// Close lets go of what an opened store holds, such as a directory store's folder. It is needed only where the process
// lives on and the folder is to be removed. A store with nothing to close is no error.
func Close(s Store) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Presigner is a store that can lend one read of one object to somebody who has no credentials. Only S3 stores are.
type Presigner interface {
	// PresignGet returns a URL that anybody may GET, with or without a Range header, from now on for life (1 s to 7 days) or
	// until the credential ends that signed it, whichever is first; until tells which. now is the store's time, as far as
	// the caller knows it. The URL is a secret: never log it.
	PresignGet(ctx context.Context, key string, now time.Time, life time.Duration) (url string, until time.Time, err error)
}

// Options tune a store. The zero Options suit production.
type Options struct {
	UserAgent string // added to the SDK's own, for the bucket's access log

	// AccessKey and SecretKey, if both are set, are used in place of the environment and the profile.
	AccessKey, SecretKey, SessionToken string

	HTTPClient  *http.Client  // in place of the tuned one, proxies and stall watch included; for tests
	MaxAttempts int           // of one request, the first included; 0: 8
	MinBackoff  time.Duration // before the second attempt, doubled for each further one, jittered; 0: 200 ms
	MaxBackoff  time.Duration // 0: 20 s
	Stall       time.Duration // a connection on which no byte moves for so long has failed; 0: 60 s
	OnRetry     func(error)   // told of each attempt that will be tried again; from many goroutines

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
	return nil, &Error{Op: "open", Key: redact(rawURL), Kind: KindOther, Err: errUnknownStore,
		Hint: "give s3://BUCKET/PREFIX?region=REGION or file:///DIR"}
}
