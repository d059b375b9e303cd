// Package incarnation numbers the lives of a Core, so that of two Cores with one bucket only the
// newer one acts.
//
// Each start of a Core takes a number above all numbers in the bucket and in its ledger, with a
// conditional Put. The numbers that a Core gives to sites are all above those of earlier
// incarnations. No number that a site or the bucket has seen goes back or gets another meaning,
// whichever backup the Core runs from. A Core that later finds another holder's number in the
// bucket, at or above its own, is the older one.
package incarnation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/bucket"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Records keeps revisions. The number is in their upper bits. *ledger.Ledger is one.
type Records interface {
	// Revision returns the highest revision issued so far.
	Revision(ctx context.Context) (uint64, error)
	// Restate makes revision the highest, durably, and the one of every site's state.
	Restate(ctx context.Context, revision uint64) error
}

// Bucket is the repository that the number belongs to.
type Bucket struct {
	Store bucket.Store
	Repo  trust.RepoID
	Doc   *trust.Doc // lists the keys that may sign
	Key   ed25519.PrivateKey
}

// Options are the parts that a Service uses. All fields are required.
type Options struct {
	Records Records
	Bucket  func() Bucket
	Now     func() time.Time
	// Taken is called after a number was taken. found is the number that the bucket held, kept that
	// of the ledger.
	Taken func(ctx context.Context, number, found, kept uint64)
}

// Service holds the incarnation of this process. It is safe for concurrent use.
type Service struct {
	o      Options
	holder [holderSize]byte
	older  atomic.Pointer[OlderError]
	number atomic.Uint64 // 0: none taken yet
	floor  atomic.Uint64 // the highest number that a site has followed
	raises *rate.Limiter // of floor

	mu sync.Mutex // one access to the bucket's object at a time
}

// ErrNone means that this process has taken no number yet.
var ErrNone = errors.New("this Core has not read the store since its start, so it does not know whether another Core uses the bucket")

// OlderError means that another Core has taken a number after this one.
type OlderError struct {
	Own, Newer uint64
	Taken      time.Time // when the newer number was taken, by that Core's clock
}

func (e *OlderError) Error() string {
	return fmt.Sprintf("another Core with this Core's keys uses the bucket: it took incarnation %d at %s, this Core has %d", e.Newer, e.Taken.Format(time.RFC3339), e.Own)
}

// New returns a Service that has taken no number.
func New(o Options) *Service {
	s := &Service{o: o, raises: rate.NewLimiter(rate.Every(time.Hour), maxRaises)}
	rand.Read(s.holder[:]) // never fails (crypto/rand)
	return s
}

// Older returns the *OlderError that Take or Check has found, or nil. A Core stays the older one until it
// is restarted. It reads nothing.
func (s *Service) Older() error {
	if e := s.older.Load(); e != nil {
		return e
	}
	return nil
}

// Acts returns nil if this Core has taken a number, and no other Core has taken a later one. Otherwise it returns ErrNone or
// an *OlderError. It reads nothing.
func (s *Service) Acts() error {
	if s.number.Load() == 0 {
		return ErrNone
	}
	return s.Older()
}

// MayState reports whether this Core may state what sites should hold, under that revision. A revision
// of an earlier incarnation may stand for another state. It reads nothing.
func (s *Service) MayState(revision uint64) bool {
	return s.Acts() == nil && revision >= wire.FirstRevision(s.number.Load())
}

// maxLeap bounds how far a site can raise the number at once, so that the numbers cannot be
// exhausted.
const maxLeap = 1 << 10

// maxRaises bounds how often sites can raise the number at once, and then each hour: each time, the Core sends
// all sites their desired states again.
const maxRaises = 4

// Followed reports that a site has followed a Core with that number. If it is this Core's number or
// higher, the bucket and the ledger have both lost it, and the next Take takes a higher one.
func (s *Service) Followed(number uint64) error {
	own := s.number.Load()
	switch {
	case s.Acts() != nil: // it is reported again when this Core has a number
	case number > own+maxLeap:
		return fmt.Errorf("incarnation %d is more than %d above this Core's %d", number, maxLeap, own)
	case number < own || number <= s.floor.Load():
	case !s.raises.AllowN(s.o.Now(), 1):
		return fmt.Errorf("incarnation %d: sites have raised the number %d times already: this one reports it again later", number, maxRaises)
	default:
		s.floor.Store(number)
	}
	return nil
}

// Check compares the bucket's number with this process's own. It returns ErrNone if this process has
// none yet, an *OlderError if this Core is the older of two, and any other error if that is unknown.
func (s *Service) Check(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Acts(); err != nil {
		return err
	}
	b := s.o.Bucket()
	_, err := s.read(ctx, &b)
	return err
}

// Take takes a number if this process has none, if the bucket has lost it or holds an old or untrusted
// object in its place, or if a site has followed a Core with a higher one. Otherwise it only checks.
// The caller has read the newest releases: all revisions after Take are above those of earlier
// incarnations.
func (s *Service) Take(ctx context.Context) (taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Older(); err != nil {
		return false, err
	}
	b := s.o.Bucket()
	found, err := s.read(ctx, &b)
	if err != nil {
		return false, err
	}
	own := s.number.Load()
	if own != 0 && found.number >= own && s.floor.Load() < own {
		return false, nil
	}
	return true, s.take(ctx, &b, found)
}

func (s *Service) read(ctx context.Context, b *Bucket) (*mark, error) {
	found, err := readMark(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("read the incarnation: %w", err)
	}
	if own := s.number.Load(); own == 0 || found.number < own || found.Holder == s.holder {
		return found, nil
	}
	older := &OlderError{Own: s.number.Load(), Newer: found.number, Taken: time.Unix(found.At, 0).UTC()}
	s.older.Store(older)
	return nil, older
}

// takeTries bounds how often another writer may be faster.
const takeTries = 16

// take writes a number above found and the ledger's, and records it. If the process dies between
// the two, the next start finds the higher number in the bucket and takes one above it. If the ledger
// cannot record it, the next take of this process records the same number.
func (s *Service) take(ctx context.Context, b *Bucket, found *mark) error {
	revision, err := s.o.Records.Revision(ctx)
	if err != nil {
		return err
	}
	kept := wire.IncarnationOf(revision)
	above := max(kept, s.number.Load(), s.floor.Load())
	number := found.number
	if found.Holder != s.holder || number <= above {
		if number, err = s.write(ctx, b, found, above); err != nil {
			return err
		}
	}
	if err := s.o.Records.Restate(ctx, wire.FirstRevision(number)); err != nil {
		return err
	}
	s.number.Store(number)
	s.o.Taken(ctx, number, found.number, kept)
	return nil
}

// write puts a number above found's and above into the bucket.
func (s *Service) write(ctx context.Context, b *Bucket, found *mark, above uint64) (uint64, error) {
	for range takeTries {
		number := max(found.number, above) + 1
		if number > maxNumber {
			return 0, fmt.Errorf("take incarnation %d: at most %d are possible", number, uint64(maxNumber))
		}
		own, err := signMark(b, number, &mark{Holder: s.holder, At: s.o.Now().Unix()})
		if err != nil {
			return 0, err
		}
		if err := (&mark{raw: own}).open(b); err != nil { // this Core could not read it back
			return 0, fmt.Errorf("take incarnation %d: %w", number, err)
		}
		_, err = b.Store.Put(ctx, Key, bucket.Bytes(own), bucket.Cond{Absent: found.etag == "", ETag: found.etag})
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, fmt.Errorf("take incarnation %d: %w", number, err)
		}
		if err != nil { // another Core was faster, or the answer to the first attempt was lost
			now, err := readMark(ctx, b)
			if err != nil {
				return 0, fmt.Errorf("take incarnation %d: %w", number, err)
			}
			if !bytes.Equal(now.raw, own) {
				found = now
				continue
			}
		}
		return number, nil
	}
	return 0, fmt.Errorf("take an incarnation: other Cores were faster %d times", takeTries)
}
