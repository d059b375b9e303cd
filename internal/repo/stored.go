package repo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// Keys of the objects that are listed by gc and fsck.
const (
	PacksPrefix    = "packs/"
	IndexPrefix    = "index/"
	ChannelsPrefix = "channels/"
)

// RootKey is the key of the index root.
const RootKey = rootKey

// Stored lists the objects of one channel in the store, by its name in object
// keys.
type Stored struct {
	Scope    string
	Head     bool
	Releases []StoredRelease // by number
}

// StoredRelease is one release object, unread.
type StoredRelease struct {
	Number   uint64
	Modified time.Time // by the store's clock
}

// Stored lists the objects of all channels with a single LIST, and the keys
// below ChannelsPrefix that are neither a head nor a release.
func (r *Repo) Stored(ctx context.Context) (scopes []Stored, strange []bucket.Info, err error) {
	err = r.store.List(ctx, ChannelsPrefix, func(i bucket.Info) error {
		scope, rest, _ := strings.Cut(strings.TrimPrefix(i.Key, ChannelsPrefix), "/")
		number, isRelease := strings.CutPrefix(rest, "releases/")
		n, numErr := strconv.ParseUint(number, 10, 64)
		isRelease = isRelease && numErr == nil && i.Key == ReleaseKey(scope, n)
		if rest != "head" && !isRelease {
			strange = append(strange, i)
			return nil
		}
		if len(scopes) == 0 || scopes[len(scopes)-1].Scope != scope {
			scopes = append(scopes, Stored{Scope: scope})
		}
		s := &scopes[len(scopes)-1]
		if isRelease {
			s.Releases = append(s.Releases, StoredRelease{Number: n, Modified: i.Modified})
		} else {
			s.Head = true
		}
		return nil
	})
	for _, s := range scopes {
		slices.SortFunc(s.Releases, func(a, b StoredRelease) int { return cmp.Compare(a.Number, b.Number) })
	}
	return scopes, strange, err
}

// ChannelOf returns the channel name for a name in object keys. In an encrypted
// repository it must read the channel's head and a release.
func (r *Repo) ChannelOf(ctx context.Context, scope string) (string, error) {
	if r.keys == nil {
		return scope, manifest.CheckChannel(scope)
	}
	return r.channelOf(ctx, scope)
}

// StoredRelease is Release by the channel's name in object keys, which also
// works for a channel without a head.
func (r *Repo) StoredRelease(ctx context.Context, scope string, number uint64, want digest.Digest) (*Release, error) {
	return r.releaseAt(ctx, scope, fmt.Sprintf("release %d of %q", number, scope), number, want)
}

func (r *Repo) releaseAt(ctx context.Context, scope, what string, number uint64, want digest.Digest) (*Release, error) {
	var rel *Release
	err := r.readGood(ctx, ReleaseKey(scope, number), manifest.MaxRelease+4096, func(b []byte, _ bucket.Info) (err error) {
		rel, err = r.acceptRelease(b, scope, number, want)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return rel, nil
}

func (r *Repo) acceptRelease(b []byte, scope string, number uint64, want digest.Digest) (*Release, error) {
	if d := digest.Of(b); !want.IsZero() && d != want {
		return nil, fmt.Errorf("%w: its digest is %s, the signed head or its child says %s", trust.ErrUntrusted, d.Short(), want.Short())
	}
	s, err := trust.Parse(manifest.ReleaseKind, manifest.ReleaseVersion, manifest.MaxRelease+4096, b)
	if err != nil {
		return nil, err
	}
	subject := trust.Subject{Kind: manifest.ReleaseKind, Version: manifest.ReleaseVersion, Repo: r.format.Repo, Scope: scope, Number: number}
	if err := s.Verify(subject); err != nil {
		return nil, err
	}
	if want.IsZero() {
		if err := r.doc.Allows(s.Signer, trust.Releases); err != nil {
			return nil, err
		}
	}
	payload, err := r.openPayload(manifest.ReleaseKind, s.Payload)
	if err != nil {
		return nil, err
	}
	m, err := manifest.DecodeRelease(payload)
	if err != nil {
		return nil, err
	}
	if r.keys.Name(m.Channel) != scope {
		return nil, fmt.Errorf("%w: it says that its channel is %q", trust.ErrUntrusted, m.Channel)
	}
	return &Release{Number: number, Digest: s.Digest, Signer: s.Signer, Release: *m}, nil
}

// CheckTrust follows the chain of trust documents from the first, as a new
// site would, and returns the number of the last.
func (r *Repo) CheckTrust(ctx context.Context) (uint64, error) {
	fresh := &Repo{store: r.store, format: r.format, keys: r.keys, now: r.now, onRetry: r.onRetry, seen: &seen{}}
	known := r.Memory()
	fresh.seen.recall(&Memory{Root: known.Root})
	if err := fresh.followTrust(ctx); err != nil {
		return fresh.trusted, err
	}
	if n := fresh.trusted; n < known.Trust {
		return n, fmt.Errorf("trust documents end at %d, %d was seen: %w: an old state of the bucket was put back", n, known.Trust, ErrOlder)
	}
	return fresh.trusted, nil
}

// checkDigest reads a body to its end and compares it with the expected size and
// digest.
func checkDigest(body io.Reader, have, size int64, want digest.Digest) error {
	if have != size {
		return fmt.Errorf("it has %d bytes, %d are expected: %w", have, size, frame.ErrDamaged)
	}
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return err
	}
	if digest.Digest(h.Sum(nil)) != want {
		return fmt.Errorf("it does not match its name: %w", frame.ErrDamaged)
	}
	return nil
}

// isMissing reports whether an object is certainly missing.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
