package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// ErrOlder means that the bucket holds an older object than was seen before: a
// restore or an attacker put back an old state.
var ErrOlder = errors.New("older than seen before")

// Memory is a reader's memory between runs, with which it refuses older
// objects. It holds no secret. The caller persists it durably before it caches
// or applies anything that was read.
type Memory struct {
	Repo     trust.RepoID      `json:"-"`
	RepoHex  string            `json:"repo"`
	Format   []byte            `json:"format"` // the format object, so that the repository can be opened while the store is away
	Root     trust.Public      `json:"root"`
	Trust    uint64            `json:"trust"`     // highest trust document seen
	TrustDoc []byte            `json:"trust_doc"` // that object, so that it need not be fetched again
	Halt     uint64            `json:"halt"`      // highest halt epoch seen
	Heads    map[string]uint64 `json:"heads"`     // channel → highest release number seen
}

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

// Repo is an open repository. It is safe for concurrent use.
type Repo struct {
	store   bucket.Store
	format  Format
	keys    *seal.Keys
	now     func() time.Time
	clock   clock.Skew
	doc     *trust.Doc // number trusted
	trusted uint64

	onRetry func(error)

	seen    *seen
	mu      sync.Mutex
	unnamed map[digest.Digest]time.Time // packs that were stored and that no segment names yet
}

// seen is the memory of one or more openings of a repository. No number in it ever decreases.
type seen struct {
	mu     sync.Mutex
	memory Memory
}

// recall begins with what an earlier program has saved.
func (s *seen) recall(m *Memory) {
	if m != nil {
		s.memory = *m
		s.memory.Heads = maps.Clone(m.Heads)
	}
}

// current returns a copy.
func (s *seen) current() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.memory
	m.Heads = maps.Clone(m.Heads)
	return m
}

// acceptHead notes a release number of a channel, unless a higher one was seen: then it returns that.
func (s *seen) acceptHead(channel string, number uint64) (higher uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.memory.Heads[channel]; number < n {
		return n, false
	}
	s.memory.Heads[channel] = number
	return 0, true
}

// acceptHalt does the same for the epoch of the halt object.
func (s *seen) acceptHalt(epoch uint64) (higher uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.memory.Halt; epoch < n {
		return n, false
	}
	s.memory.Halt = epoch
	return 0, true
}

// acceptTrust notes a trust document and its root key.
func (s *seen) acceptTrust(root trust.Public, number uint64, object []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.Root = root
	if number > s.memory.Trust {
		s.memory.Trust, s.memory.TrustDoc = number, object
	}
}

// start fills a memory for a repository. It returns an error if it is the memory of another one, or if its root key is
// not the given one.
func (s *seen) start(f *Format, object []byte, root *trust.Public) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.memory
	if m.RepoHex != "" && m.RepoHex != f.Repo.String() {
		return fmt.Errorf("%w: the store holds repository %s, this place belongs to %s: check the store's address", trust.ErrUntrusted, f.Repo, m.RepoHex)
	}
	m.Repo, m.RepoHex, m.Format = f.Repo, f.Repo.String(), object
	if m.Heads == nil {
		m.Heads = map[string]uint64{}
	}
	if root == nil {
		return nil
	}
	if m.Root != (trust.Public{}) && m.Root != *root {
		return fmt.Errorf("%w: this place is pinned to root key %s, --trust says %s", trust.ErrUntrusted, m.Root, *root)
	}
	m.Root = *root
	return nil
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
	r := &Repo{store: s, now: o.Now, onRetry: o.OnRetry, seen: &seen{}}
	var format []byte
	asked := clock.LocalAt(o.Now())
	err := r.readGood(ctx, formatKey, maxFormat, func(b []byte, info bucket.Info) error {
		r.clock.Compare(clock.StoreAt(info.Date), asked, clock.LocalAt(o.Now()))
		f, err := DecodeFormat(b)
		if err == nil {
			r.format, format = *f, b
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoRepository, err)
	}
	if err != nil {
		return nil, err
	}
	if o.Continue != nil {
		r.seen = o.Continue.seen
	} else {
		if o.Memory == nil && o.Recall != nil {
			if o.Memory, err = o.Recall(r.format.Repo); err != nil {
				return nil, err
			}
		}
		r.seen.recall(o.Memory)
	}
	if err := r.acceptFormat(format, &o); err != nil {
		return nil, err
	}
	return r, r.followTrust(ctx)
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
		return nil, fmt.Errorf("remembered format: %w", err)
	}
	r := &Repo{store: s, now: o.Now, onRetry: o.OnRetry, format: *f, seen: &seen{}}
	r.seen.recall(o.Memory)
	return r, r.acceptFormat(o.Memory.Format, &o)
}

// acceptFormat completes the memory, unlocks an encrypted repository and accepts the
// remembered trust document.
func (r *Repo) acceptFormat(format []byte, o *Options) error {
	if err := r.seen.start(&r.format, format, o.Root); err != nil {
		return err
	}
	if err := r.unlockKeys(o.Key); err != nil {
		return err
	}
	if m := r.Memory(); m.Trust > 0 {
		if err := r.acceptTrust(m.Trust, m.TrustDoc); err != nil {
			return fmt.Errorf("remembered trust document: %w", err)
		}
	}
	return nil
}

func (r *Repo) unlockKeys(key []byte) (err error) {
	if r.format.Cipher == seal.Plain {
		return nil // an unneeded key does no harm
	}
	if key == nil {
		return fmt.Errorf("%w: this repository is encrypted: give --key-file FILE or set NIGHTFERRY_KEY", ErrKey)
	}
	if r.keys, err = seal.NewKeys(key, r.format.Repo); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if string(r.keys.Check()) != string(r.format.Check) {
		return fmt.Errorf("%w: it is not the key of this repository", ErrKey)
	}
	return nil
}

func (r *Repo) followTrust(ctx context.Context) error {
	for {
		n := r.trusted + 1
		err := r.readGood(ctx, trustKey(n), trust.MaxDoc, func(b []byte, _ bucket.Info) error {
			if err := r.acceptTrust(n, b); err != nil {
				return fmt.Errorf("%s: %w", trustKey(n), err)
			}
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) && n > 1 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *Repo) acceptTrust(n uint64, b []byte) error {
	s, err := trust.Parse(trust.DocKind, trust.DocVersion, trust.MaxDoc, b)
	if err != nil {
		return err
	}
	if err := s.Verify(trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: r.format.Repo, Number: n}); err != nil {
		return err
	}
	pinned := r.Root()
	if pinned != (trust.Public{}) && s.Signer != pinned {
		return fmt.Errorf("%w: signed by root key %s, pinned is %s", trust.ErrUntrusted, s.Signer, pinned)
	}
	doc, err := trust.DecodeDoc(s.Payload)
	if err != nil {
		return err
	}
	r.doc, r.trusted = doc, n
	r.seen.acceptTrust(s.Signer, n, b)
	return nil
}

// StoreTime returns the store's time, which dates all signed objects. A wrong
// local clock therefore cannot sign anything that expires too late or is not
// valid yet.
func (r *Repo) StoreTime() time.Time {
	return r.clock.Store(clock.LocalAt(r.now())).Time()
}

// Memory returns the current memory, for the caller to persist.
func (r *Repo) Memory() Memory { return r.seen.current() }

// ID returns the repository's id.
func (r *Repo) ID() trust.RepoID { return r.format.Repo }

// Format returns the format object.
func (r *Repo) Format() Format { return r.format }

// Keys returns the keys of an encrypted repository, nil of a plain one.
func (r *Repo) Keys() *seal.Keys { return r.keys }

// Params returns the chunker's parameters.
func (r *Repo) Params() chunk.Params { return r.format.Chunker }

// Store returns the store that the repository lives in.
func (r *Repo) Store() bucket.Store { return r.store }

// Root returns the root key that signed the trust documents.
func (r *Repo) Root() trust.Public { return r.Memory().Root }

// Trust returns the current trust document and its number.
func (r *Repo) Trust() (*trust.Doc, uint64) { return r.doc, r.trusted }

func (r *Repo) putTrust(ctx context.Context, root ed25519.PrivateKey, n uint64, doc *trust.Doc) error {
	payload, err := doc.Encode()
	if err != nil {
		return err
	}
	b, err := trust.Sign(root, trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: r.format.Repo, Number: n}, payload)
	if err != nil {
		return err
	}
	return putNew(ctx, r.store, trustKey(n), b)
}

// PutTrust publishes the next trust document. root must be the pinned key.
func (r *Repo) PutTrust(ctx context.Context, root ed25519.PrivateKey, doc *trust.Doc) error {
	if pinned := r.Root(); PublicOf(root) != pinned {
		return fmt.Errorf("%w: this is not the root key of the repository (%s)", trust.ErrUntrusted, pinned)
	}
	n := r.trusted + 1
	if err := r.putTrust(ctx, root, n, doc); err != nil {
		return err
	}
	b, _, err := readObject(ctx, r.store, trustKey(n), trust.MaxDoc)
	if err != nil {
		return err
	}
	return r.acceptTrust(n, b)
}

// sealPayload encrypts a payload in an encrypted repository: salt, then sealed
// bytes.
func (r *Repo) sealPayload(kind string, b []byte) ([]byte, error) {
	salt := r.keys.NewSalt()
	obj, err := r.keys.Object(kind, salt)
	if err != nil {
		return nil, err
	}
	return obj.Seal(salt, b, 0), nil
}

func (r *Repo) openPayload(kind string, b []byte) ([]byte, error) {
	if r.keys == nil {
		return b, nil
	}
	if len(b) < seal.SaltSize {
		return nil, fmt.Errorf("%s: sealed payload of %d bytes: %w", kind, len(b), frame.ErrDamaged)
	}
	obj, err := r.keys.Object(kind, b[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return obj.Open(nil, b[seal.SaltSize:], 0)
}
