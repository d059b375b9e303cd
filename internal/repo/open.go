package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/clock"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// Options open a repository.
type Options struct {
	Memory *Memory // nil: first use
	// Continue is an earlier opening of the repository in this program. Both then share one memory: a number that
	// either of them sees holds for both, at once. It takes precedence over Memory and Recall.
	Continue *Repo
	// Recall returns the memory of a repository by its id, for a caller that
	// knows several repositories; nil means first use. If Memory is set, it
	// takes precedence.
	Recall func(trust.RepoID) (*Memory, error)
	Root   *trust.Public // must be the repository's root key; nil: pin on first use
	Key    []byte        // repository key, if it is encrypted
	Now    func() time.Time
	// OnRetry is called for each object that arrived damaged and is read again,
	// from many goroutines. May be nil.
	OnRetry func(error)
}

// Repo is an open repository: its channels with their heads and releases. The trust documents, the halt object, the
// manifests and the index have types of their own. It is safe for concurrent use.
type Repo struct {
	objects  *objects
	format   Format
	identity identity
	now      func() time.Time
	clock    *clock.Skew
	seen     *seen
	trust    *TrustChain
	halts    *Halts
	unnamed  unnamedPacks
}

// ErrNoRepository means that the store holds no repository below its prefix.
var ErrNoRepository = errors.New("no repository is here")

// ErrKey means that the repository is encrypted and the key is missing or
// wrong.
var ErrKey = errors.New("repository key")

// Open reads the format and the trust documents, newest last. It sends one
// request for the format, one for each new document, and one that finds no
// newer document.
func Open(ctx context.Context, s bucket.Store, o Options) (*Repo, error) {
	from := &objects{store: s, onRetry: o.OnRetry}
	var format *Format
	var object []byte
	skew := new(clock.Skew)
	asked := clock.LocalAt(o.Now())
	err := from.readGood(ctx, formatKey, maxFormat, func(b []byte, info bucket.Info) (err error) {
		skew.Compare(clock.StoreAt(info.Date), asked, clock.LocalAt(o.Now()))
		format, err = DecodeFormat(b)
		object = b
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoRepository, err)
	}
	if err != nil {
		return nil, err
	}
	memory := &seen{}
	if o.Continue != nil {
		memory = o.Continue.seen
	} else {
		if o.Memory == nil && o.Recall != nil {
			if o.Memory, err = o.Recall(format.Repo); err != nil {
				return nil, err
			}
		}
		memory.recall(o.Memory)
	}
	r, err := openFormat(from, format, object, memory, &o)
	if err != nil {
		return nil, err
	}
	r.clock = skew
	return r, r.trust.follow(ctx)
}

// OpenRemembered opens the repository of o.Memory without a request. Its trust
// document is the newest one seen. It serves a program that must sign halts
// while the store is unreachable. Without a memory it returns ErrNoRepository.
func OpenRemembered(s bucket.Store, o Options) (*Repo, error) {
	if o.Memory == nil || len(o.Memory.Format) == 0 || o.Memory.Trust == 0 {
		return nil, fmt.Errorf("%w: none was seen yet", ErrNoRepository)
	}
	f, err := DecodeFormat(o.Memory.Format)
	if err != nil {
		return nil, &MemoryError{Err: fmt.Errorf("format: %w", err)}
	}
	memory := &seen{}
	memory.recall(o.Memory)
	return openFormat(&objects{store: s, onRetry: o.OnRetry}, f, o.Memory.Format, memory, &o)
}

// openFormat completes the memory, unlocks an encrypted repository and accepts the
// remembered trust document.
func openFormat(from *objects, f *Format, object []byte, memory *seen, o *Options) (*Repo, error) {
	if err := memory.start(f, object, o.Root); err != nil {
		return nil, err
	}
	keys, err := f.unlock(o.Key)
	if err != nil {
		return nil, err
	}
	r := newRepo(from, f, keys, memory, o.Now)
	return r, r.trust.recall()
}

// newRepo joins the parts of a repository.
func newRepo(from *objects, f *Format, keys *seal.Keys, memory *seen, now func() time.Time) *Repo {
	r := &Repo{objects: from, format: *f, identity: identity{f.Repo, keys}, now: now, clock: new(clock.Skew), seen: memory}
	r.trust = &TrustChain{objects: from, repo: f.Repo, seen: memory}
	r.halts = &Halts{objects: from, identity: r.identity, trust: r.trust, seen: memory}
	return r
}

// Trust returns the repository's trust documents.
func (r *Repo) Trust() *TrustChain { return r.trust }

// Halts returns the repository's halt orders.
func (r *Repo) Halts() *Halts { return r.halts }

// StoreTime returns the store's time, which dates all signed objects. A wrong
// local clock therefore cannot sign anything that expires too late or is not
// valid yet.
func (r *Repo) StoreTime() clock.Store { return r.clock.Store(clock.LocalAt(r.now())) }

// Memory returns the current memory, for the caller to persist.
func (r *Repo) Memory() Memory { return r.seen.current() }

// ID returns the repository's id.
func (r *Repo) ID() trust.RepoID { return r.format.Repo }

// Format returns the format object.
func (r *Repo) Format() Format { return r.format }

// Keys returns the keys of an encrypted repository, nil of a plain one.
func (r *Repo) Keys() *seal.Keys { return r.identity.keys }

// Params returns the chunker's parameters.
func (r *Repo) Params() chunk.Params { return r.format.Chunker }

// Store returns the store that the repository lives in.
func (r *Repo) Store() bucket.Store { return r.objects.store }

// Grace returns how long a pack stays condemned before it may be deleted.
func (r *Repo) Grace() time.Duration { return time.Duration(r.format.Grace) * time.Second }

// inTime returns ErrTooLong if more than half the grace period has passed from since to now, by the
// store's clock. Objects seen or stored at since may soon be deleted; the other half leaves time for the
// next call.
func (r *Repo) inTime(since, now clock.Store) error {
	if since.IsZero() || now.Sub(since) <= r.Grace()/2 {
		return nil
	}
	return fmt.Errorf("%w (%v, at most %v): nothing was published; run it again, it resumes where this one ended", ErrTooLong, now.Sub(since).Round(time.Second), r.Grace()/2)
}
