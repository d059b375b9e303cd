package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// Release is a release as read and verified.
type Release struct {
	Number trust.ReleaseNumber
	Digest trust.ReleaseDigest // SHA-256 of the release object
	Signer trust.Public
	manifest.Release
}

// Release reads a release. want is the digest from a verified head or a
// verified child. With the zero Digest, the signer alone decides: its key must
// be active or retired.
func (r *Repo) Release(ctx context.Context, channel string, number trust.ReleaseNumber, want trust.ReleaseDigest) (*Release, error) {
	return r.releaseAt(ctx, r.identity.keys.Name(channel), fmt.Sprintf("release %d of %q", number, channel), number, want)
}

// StoredRelease is Release by the channel's name in object keys, which also
// works for a channel without a head.
func (r *Repo) StoredRelease(ctx context.Context, scope string, number trust.ReleaseNumber, want trust.ReleaseDigest) (*Release, error) {
	return r.releaseAt(ctx, scope, fmt.Sprintf("release %d of %q", number, scope), number, want)
}

func (r *Repo) releaseAt(ctx context.Context, scope, what string, number trust.ReleaseNumber, want trust.ReleaseDigest) (*Release, error) {
	var rel *Release
	err := r.objects.readGood(ctx, ReleaseKey(scope, number), manifest.MaxRelease+4096, func(b []byte, _ bucket.Info) (err error) {
		rel, err = r.acceptRelease(b, scope, number, want)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return rel, nil
}

// acceptRelease proves a release.
func (r *Repo) acceptRelease(b []byte, scope string, number trust.ReleaseNumber, want trust.ReleaseDigest) (*Release, error) {
	if d := digest.Of(b); !want.IsZero() && trust.ReleaseDigest(d) != want {
		return nil, fmt.Errorf("%w: its digest is %s, the signed head or its child says %s", trust.ErrUntrusted, d.Short(), want.Short())
	}
	s, err := trust.Parse(manifest.ReleaseKind, manifest.ReleaseVersion, manifest.MaxRelease+4096, b)
	if err != nil {
		return nil, err
	}
	if err := s.Verify(r.identity.subject(manifest.ReleaseKind, manifest.ReleaseVersion, scope, uint64(number))); err != nil {
		return nil, err
	}
	if want.IsZero() {
		if err := r.trust.allows(s.Signer, trust.Releases); err != nil {
			return nil, err
		}
	}
	payload, err := r.identity.openPayload(manifest.ReleaseKind, s.Payload)
	if err != nil {
		return nil, err
	}
	m, err := manifest.DecodeRelease(payload)
	if err != nil {
		return nil, err
	}
	if r.identity.keys.Name(m.Channel) != scope {
		return nil, fmt.Errorf("%w: it says that its channel is %q", trust.ErrUntrusted, m.Channel)
	}
	return &Release{Number: number, Digest: trust.ReleaseDigest(s.Digest), Signer: s.Signer, Release: *m}, nil
}

// History calls fn for each release from head back along the parents, until
// fn returns false, the first release, or one that gc has removed.
func (r *Repo) History(ctx context.Context, channel string, head *Head, fn func(*Release) (bool, error)) error {
	rel, err := r.Release(ctx, channel, head.Number, head.Release)
	for {
		if err != nil {
			return err
		}
		if more, err := fn(rel); err != nil || !more || rel.Parent.IsZero() {
			return err
		}
		// Numbers may have gaps where a push died: the parent is the newest
		// older release with the digest that the child names.
		parent, found := rel.Parent, false
		for n := rel.Number - 1; n >= 1 && rel.Number-n <= casTries; n-- {
			next, err := r.Release(ctx, channel, n, parent)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, trust.ErrUntrusted) {
				continue
			}
			if err != nil {
				return err
			}
			rel, found = next, true
			break
		}
		if !found {
			return nil
		}
	}
}

// ReleaseBelow reads a release that is older than the head's. If any key was revoked, it first follows
// the chain of parents from head. A release that the chain names is valid even if its signer's key is
// revoked, because it was published before that. Otherwise the signer decides: its key must be active or
// retired.
func (r *Repo) ReleaseBelow(ctx context.Context, channel string, head *Head, number trust.ReleaseNumber) (rel *Release, err error) {
	if doc, _ := r.trust.Current(); slices.ContainsFunc(doc.Keys, func(k trust.Key) bool { return k.Status == trust.Revoked }) {
		err = r.History(ctx, channel, head, func(x *Release) (more bool, err error) {
			if x.Number == number {
				rel = x
			}
			return x.Number > number, nil
		})
		if rel != nil || err != nil {
			return rel, err
		}
	}
	return r.Release(ctx, channel, number, trust.ReleaseDigest{})
}
