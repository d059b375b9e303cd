// Package repo opens a repository in a bucket. It follows the trust chain,
// reads heads and releases, looks chunks up in the index, fetches their blocks,
// and publishes in the one safe order. It joins the formats with the store;
// other packages decide which files to publish or apply. docs/ordering.md
// derives the orders.
package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// Keys of the objects, below the store's prefix. See docs/format/README.md.
const (
	formatKey = "format"
	haltKey   = "halt"
	rootKey   = "index/root"
)

// PackKey returns the key of a pack.
func PackKey(d digest.Digest) string { s := d.String(); return "packs/" + s[:2] + "/" + s }

// SegmentKey returns the key of an index segment.
func SegmentKey(d digest.Digest) string { return "index/" + d.String() }

// TrustKey returns the key of trust document n.
func TrustKey(n uint64) string { return fmt.Sprintf("trust/%d", n) }

// HeadKey returns the key of a channel's head; name is Keys().Name(channel).
func HeadKey(name string) string { return "channels/" + name + "/head" }

// ReleaseKey returns the key of a release.
func ReleaseKey(name string, number trust.ReleaseNumber) string {
	return fmt.Sprintf("channels/%s/releases/%d", name, number)
}

const (
	// FormatKind and FormatVersion open the format object.
	FormatKind    = "frmt"
	FormatVersion = 1

	maxFormat = 4 << 10
	// DefaultGrace is how long a condemned pack is kept if InitOptions does not
	// set Grace.
	DefaultGrace = 7 * 24 * time.Hour
	// HeadLife is how long a head's signature is valid.
	HeadLife = 14 * 24 * time.Hour
)

// Format is the format object: the fixed properties of a repository.
type Format struct {
	_       struct{}     `cbor:",toarray"`
	Format  uint32       `json:"format"` // 1
	Repo    trust.RepoID `json:"repo"`
	Chunker chunk.Params `json:"chunker"`
	Cipher  uint8        `json:"cipher"` // seal.Plain or seal.AES256GCM
	Check   []byte       `json:"check"`  // seal.Keys.Check; empty in a plain repository
	Grace   int64        `json:"grace"`  // seconds between condemning a pack and deleting it
}

// DecodeFormat reads the format object.
func DecodeFormat(b []byte) (*Format, error) {
	var f Format
	b, err := frame.CutSum(FormatKind, FormatVersion, b)
	if err != nil {
		return nil, err
	}
	if err := frame.Decode(FormatKind, FormatVersion, maxFormat, b, &f); err != nil {
		return nil, err
	}
	if f.Format != 1 {
		return nil, &frame.NewerError{Kind: "repository", Version: uint16(min(f.Format, 1<<16-1)), Supported: 1}
	}
	if err := f.Chunker.Validate(); err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	if f.Cipher > seal.AES256GCM || (f.Cipher == seal.Plain) != (len(f.Check) == 0) || f.Grace < 0 || f.Grace > 1<<31 {
		return nil, fmt.Errorf("format: cipher %d or grace %d out of bounds: %w", f.Cipher, f.Grace, frame.ErrDamaged)
	}
	return &f, nil
}

// unlock returns the keys of an encrypted repository, nil of a plain one.
func (f *Format) unlock(key []byte) (*seal.Keys, error) {
	if f.Cipher == seal.Plain {
		return nil, nil // an unneeded key does no harm
	}
	if key == nil {
		return nil, fmt.Errorf("%w: this repository is encrypted: give --key-file FILE or set NIGHTFERRY_KEY", ErrKey)
	}
	keys, err := seal.NewKeys(key, f.Repo)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if string(keys.Check()) != string(f.Check) {
		return nil, fmt.Errorf("%w: it is not the key of this repository", ErrKey)
	}
	return keys, nil
}

// InitOptions are the properties of a new repository.
type InitOptions struct {
	Params  chunk.Params // zero: chunk.Default()
	Key     []byte       // repository key; nil for a plain repository
	Root    ed25519.PrivateKey
	Release ed25519.PrivateKey // signs releases, heads and halts
	Grace   time.Duration      // 0: DefaultGrace
	Now     time.Time
}

// ErrExists means that the store already holds a repository.
var ErrExists = errors.New("a repository is there already")

// Init makes a repository in an empty store. The format object is stored first
// and only if absent, so that of two inits one wins. The index root is stored
// last. If Init dies midway, running it again with the same options completes
// it.
func Init(ctx context.Context, s bucket.Store, o InitOptions) (trust.RepoID, error) {
	var id trust.RepoID
	if o.Params == (chunk.Params{}) {
		o.Params = chunk.Default()
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	rand.Read(id[:]) // never fails (crypto/rand)
	f, keys, err := newFormat(id, o)
	if err != nil {
		return id, err
	}
	b, err := frame.Encode(FormatKind, FormatVersion, f)
	if err != nil {
		return id, err
	}
	err = putNew(ctx, s, formatKey, frame.AppendSum(b))
	begun := errors.Is(err, fs.ErrExist)
	if begun {
		f, keys, err = findUnfinished(ctx, s, o)
	}
	if err != nil {
		return id, err
	}
	r := newRepo(&objects{store: s}, f, keys, &seen{}, func() time.Time { return o.Now })
	doc := trust.Doc{Keys: []trust.Key{{Public: PublicOf(o.Release), Roles: trust.AllRoles, Since: o.Now.Unix()}}}
	err = r.trust.create(ctx, o.Root, 1, &doc)
	if begun && errors.Is(err, fs.ErrExist) {
		// Ours, if the same keys made it.
		root := PublicOf(o.Root)
		r.seen.recall(&Memory{Root: root})
		if err = r.trust.follow(ctx); err == nil {
			err = r.trust.allows(PublicOf(o.Release), trust.Heads)
		}
		if err != nil {
			err = fmt.Errorf("init: %w by another root or release key: %w", ErrExists, err)
		}
	}
	if err != nil {
		return f.Repo, err
	}
	if err := r.halts.create(ctx, o.Release); err != nil && (!begun || !errors.Is(err, fs.ErrExist)) {
		return f.Repo, err
	}
	root, err := index.EncodeRoot(&index.Root{Sequence: 1})
	if err != nil {
		return f.Repo, err
	}
	return f.Repo, putNew(ctx, s, rootKey, root)
}

// Probe returns the features that a repository needs and its store lacks, see
// bucket.Probe.
func Probe(ctx context.Context, s bucket.Store) error {
	if err := bucket.Probe(ctx, s, formatKey); err != nil {
		return fmt.Errorf("this store cannot hold a repository: %w", err)
	}
	return nil
}

func newFormat(id trust.RepoID, o InitOptions) (*Format, *seal.Keys, error) {
	f := &Format{Format: 1, Repo: id, Chunker: o.Params, Grace: int64(o.Grace / time.Second)}
	if o.Key == nil {
		return f, nil, nil
	}
	keys, err := seal.NewKeys(o.Key, id)
	if err != nil {
		return nil, nil, err
	}
	f.Cipher, f.Check = keys.Cipher(), keys.Check()
	return f, keys, nil
}

// findUnfinished returns the format of an unfinished init with the same options.
// It returns ErrExists if the options differ or the repository is complete.
func findUnfinished(ctx context.Context, s bucket.Store, o InitOptions) (*Format, *seal.Keys, error) {
	exists := fmt.Errorf("init: %w", ErrExists)
	_, _, err := readObject(ctx, s, rootKey, index.MaxRoot)
	if err == nil {
		return nil, nil, exists
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	// A lost root does not prove an unfinished init: fsck rebuilds the root.
	used := false
	for _, prefix := range []string{"channels/", "packs/"} {
		if err := s.List(ctx, prefix, func(bucket.Info) error { used = true; return errStop }); err != nil && !errors.Is(err, errStop) {
			return nil, nil, err
		}
	}
	if used {
		return nil, nil, exists
	}
	b, _, err := readObject(ctx, s, formatKey, maxFormat)
	if err != nil {
		return nil, nil, err
	}
	f, err := DecodeFormat(b)
	if err != nil {
		return nil, nil, err
	}
	want, keys, err := newFormat(f.Repo, o)
	if err != nil {
		return nil, nil, err
	}
	if f.Chunker != want.Chunker || f.Grace != want.Grace || f.Cipher != want.Cipher || !bytes.Equal(f.Check, want.Check) {
		return nil, nil, fmt.Errorf("%w; or give the options and keys of the init that was interrupted there", exists)
	}
	return f, keys, nil
}

// errStop ends a list at its first key.
var errStop = errors.New("seen enough")

// PublicOf returns the public half of a key.
func PublicOf(k ed25519.PrivateKey) (p trust.Public) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}
