package bucket

import (
	"errors"
	"io/fs"
	"net/url"
	"strings"
)

// Kind classifies an Error by how callers handle it.
type Kind uint8

const (
	KindOther        Kind = iota
	KindNotExist          // no such object; errors.Is(err, fs.ErrNotExist)
	KindPrecondition      // the condition of a Put did not hold; errors.Is(err, fs.ErrExist)
	KindDenied            // the store knows the credential and refuses; errors.Is(err, fs.ErrPermission)
	KindExpired           // the credential has expired
	KindThrottled         // the store kept throttling until the tries ran out
	KindUnreachable       // no response, an incomplete one, or none from the store itself: DNS, proxy, refused, reset, timed out
	KindIntegrity         // wrong bytes: checksum, length, or an object that changed while it was read
	KindFull              // no space left, or a quota
	KindEndpoint          // the store's URL is wrong: region, scheme or server
)

var kindNames = [...]string{"other", "not found", "condition failed", "denied", "expired", "throttled", "unreachable", "integrity", "full", "endpoint"}

func (k Kind) String() string { return kindNames[k] }

// Error is the type of all errors of a store. Its text contains the operation, the key, the cause and, if known, the
// remedy. It never contains a credential, a signature or a URL's query.
type Error struct {
	Op   string // open, get, put, delete, list, presign
	Key  string // the key, or the prefix of a list; for open, the store
	Kind Kind
	Hint string // the remedy; may be empty
	Err  error  // the cause

	// Final means that a person must change something first, so the request is not tried again.
	Final bool
}

func (e *Error) Error() string {
	s := e.Op + " " + e.Key + ": " + e.Err.Error()
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes the kinds with an equivalent in io/fs match it.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Kind == KindNotExist
	case fs.ErrExist:
		return e.Kind == KindPrecondition
	case fs.ErrPermission:
		return e.Kind == KindDenied
	}
	return false
}

// KindOf returns the kind of the *Error in err's chain, KindOther if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindOther
}

var (
	// ErrNoBucket means that the store has no such bucket. It proves nothing
	// about any object.
	ErrNoBucket = errors.New("no such bucket")

	errUnknownStore = errors.New("not the URL of a store")
	errAbsent       = errors.New("no such object")
	errExists       = errors.New("an object is there already")
	errChanged      = errors.New("the object is not the expected one any more")
	errRange        = errors.New("the object does not hold the range asked for")
	errEmptyRange   = errors.New("a range of no bytes")
	errShort        = errors.New("the body ended early")
	errChecksum     = errors.New("the body does not match its checksum")
	errBadKey       = errors.New("not a valid key")
)

// redactURL drops possible secrets from a URL that a person typed: userinfo, and any parameter but the two known ones.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		scheme, _, _ := strings.Cut(raw, ":")
		return scheme + ":…"
	}
	u.User = nil
	q := url.Values{}
	for _, k := range []string{"region", "endpoint"} {
		if v := u.Query().Get(k); v != "" {
			q.Set(k, scrubSecrets(v))
		}
	}
	u.RawQuery, u.Fragment = q.Encode(), ""
	return u.String()
}
