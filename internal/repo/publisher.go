package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// ErrConflict means that another push published to the channel first.
var ErrConflict = errors.New("another push was faster")

// ErrTooLong means that a push, or a gc that rewrites packs, ran longer than half the grace period: gc might delete
// objects that it relies on.
var ErrTooLong = errors.New("this run took longer than half the grace period")

// ErrForgotten means that fsck removed packs from the index while a push relied
// on them.
var ErrForgotten = errors.New("fsck has forgotten lost packs since this run began")

// Publisher signs and stores releases and heads. Its key must be an active release and head key.
type Publisher struct {
	repo *Repo
	key  ed25519.PrivateKey
}

// Publisher returns a publisher that signs with key.
func (r *Repo) Publisher(key ed25519.PrivateKey) Publisher { return Publisher{r, key} }

// Commit describes a release to publish.
type Commit struct {
	Release manifest.Release // Parent is set by Publish
	Parent  *Head            // the head it follows; nil for a channel's first
	Started clock.Store      // when the index root was first read
	Lost    uint64           // that root's count of forgotten packs
	Subject halt.Subject     // who publishes: the halt orders are read once more before the head moves
}

// Publish signs and stores the release, then moves the head by
// compare-and-swap. Of two concurrent pushes exactly one succeeds; the other
// gets ErrConflict. Every chunk and page must be in the index already. If a halt order stops c.Subject, the head does
// not move and the error is a *halt.Error.
func (p Publisher) Publish(ctx context.Context, c Commit) (*Release, error) {
	if err := p.repo.trust.allows(PublicOf(p.key), trust.Heads); err != nil {
		return nil, err
	}
	number, etag := trust.ReleaseNumber(1), ""
	if c.Parent != nil {
		number, etag, c.Release.Parent = c.Parent.Number+1, c.Parent.ETag, c.Parent.Release
	}
	channel := c.Release.Channel
	if c.Parent == nil || c.Parent.Behind {
		number = max(number, p.repo.seen.release(channel)+1) // sites refuse older numbers
	}
	payload, err := manifest.EncodeRelease(&c.Release)
	if err != nil {
		return nil, err
	}
	if payload, err = p.repo.identity.sealPayload(manifest.ReleaseKind, payload); err != nil {
		return nil, err
	}
	out, date, err := p.putRelease(ctx, c, number, payload)
	if err != nil {
		return nil, err
	}
	if err := p.repo.inTime(c.Started, date); err != nil {
		return nil, err
	}
	if err := p.forgotNothing(ctx, c.Lost); err != nil {
		return nil, err
	}
	// The final look, however recent the previous one.
	if err := p.repo.halts.Check(ctx, c.Subject); err != nil {
		return nil, err
	}
	err = p.putHead(ctx, channel, out.Number, out.Digest, etag)
	for range casTries {
		if !errors.Is(err, ErrConflict) || c.Parent == nil {
			break
		}
		// A head that was only signed again is still the parent.
		now, headErr := p.repo.PushHead(ctx, channel)
		if headErr != nil {
			return nil, headErr
		}
		if now.Number != c.Parent.Number || now.Release != c.Parent.Release {
			break
		}
		if err := p.repo.inTime(c.Started, now.Date); err != nil {
			return nil, err
		}
		err = p.putHead(ctx, channel, out.Number, out.Digest, now.ETag)
	}
	if err != nil {
		return nil, err
	}
	p.repo.seen.acceptHead(channel, out.Number)
	return out, nil
}

// forgotNothing returns ErrForgotten if the index root's count of forgotten
// packs differs from before: chunks that were stored then may be lost.
func (p Publisher) forgotNothing(ctx context.Context, before uint64) error {
	x, err := p.repo.Index(ctx)
	if err != nil {
		return err
	}
	if x.root.Lost != before {
		return fmt.Errorf("%w: nothing was published; run it again, it stores the missing content", ErrForgotten)
	}
	return nil
}

// putRelease stores the release under the first free number. A number that is taken while the head has
// not moved belongs to a push that died or that may still lose: only the head decides which push wins.
func (p Publisher) putRelease(ctx context.Context, c Commit, number trust.ReleaseNumber, payload []byte) (*Release, clock.Store, error) {
	const few = 8
	channel, scope := c.Release.Channel, p.repo.identity.keys.Name(c.Release.Channel)
	for try := range casTries {
		b, err := trust.Sign(p.key, p.repo.identity.subject(manifest.ReleaseKind, manifest.ReleaseVersion, scope, uint64(number)), payload)
		if err != nil {
			return nil, clock.Store{}, err
		}
		key := ReleaseKey(scope, number)
		info, err := putObject(ctx, p.repo.objects.store, key, b, bucket.Cond{Absent: true})
		if err == nil {
			return &Release{Number: number, Digest: trust.ReleaseDigest(digest.Of(b)), Signer: PublicOf(p.key), Release: c.Release}, clock.StoreAt(info.Date), nil
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, clock.Store{}, err
		}
		now, err := p.repo.PushHead(ctx, channel)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, clock.Store{}, err
		}
		if now != nil && (c.Parent == nil || now.Number != c.Parent.Number) {
			return nil, clock.Store{}, conflictError(channel, now.Number)
		}
		number++
		if try >= few { // this many pushes have died since the last that succeeded
			if number, err = p.pastAll(ctx, scope, number); err != nil {
				return nil, clock.Store{}, err
			}
		}
	}
	return nil, clock.Store{}, fmt.Errorf("release %d of %q: every number is taken", number, channel)
}

// pastAll returns the first number, from number on, above which a channel has no
// release.
func (p Publisher) pastAll(ctx context.Context, scope string, number trust.ReleaseNumber) (trust.ReleaseNumber, error) {
	err := p.repo.objects.store.List(ctx, path.Dir(ReleaseKey(scope, number))+"/", func(i bucket.Info) error {
		if n, err := strconv.ParseUint(path.Base(i.Key), 10, 64); err == nil && i.Key == ReleaseKey(scope, trust.ReleaseNumber(n)) && n < math.MaxUint64 {
			number = max(number, trust.ReleaseNumber(n+1))
		}
		return nil
	})
	return number, err
}

// conflictError reports that another push published release number.
func conflictError(channel string, number trust.ReleaseNumber) error {
	return fmt.Errorf("%w: release %d of %q was published meanwhile; nothing of it is lost, push again on top of it", ErrConflict, number, channel)
}

// putHead signs the head and replaces the one that has etag.
func (p Publisher) putHead(ctx context.Context, channel string, number trust.ReleaseNumber, release trust.ReleaseDigest, etag string) error {
	h := trust.Head{Release: release, Expires: p.repo.StoreTime().Add(HeadLife).Unix()}
	payload, err := h.Encode()
	if err != nil {
		return err
	}
	scope := p.repo.identity.keys.Name(channel)
	b, err := trust.Sign(p.key, p.repo.identity.subject(trust.HeadKind, trust.HeadVersion, scope, uint64(number)), payload)
	if err != nil {
		return err
	}
	_, err = putObject(ctx, p.repo.objects.store, HeadKey(scope), b, replaceCond(etag))
	if errors.Is(err, fs.ErrExist) {
		now, headErr := p.repo.PushHead(ctx, channel)
		if headErr != nil {
			return headErr
		}
		return conflictError(channel, now.Number)
	}
	return err
}

// Resign signs a channel's head again: same release, new expiry. The head's
// signature must be good, but its key may be retired or revoked. The caller
// vouches for the release that the head names, and so must have checked it.
// Programs call Renew.
func (p Publisher) Resign(ctx context.Context, channel string) (number trust.ReleaseNumber, err error) {
	return p.resignHead(ctx, channel, func(*trust.Key, trust.ReleaseNumber, trust.ReleaseDigest) error { return nil })
}

// Renew is Resign for callers that do not check the release. It signs the head
// again only if the head names the release that the caller knows to be good,
// else it returns ErrConflict. It never renews a head of a revoked key, because
// that would undo the revocation, and returns trust.ErrUntrusted.
func (p Publisher) Renew(ctx context.Context, channel string, number trust.ReleaseNumber, release trust.ReleaseDigest) (trust.ReleaseNumber, error) {
	return p.resignHead(ctx, channel, func(signer *trust.Key, n trust.ReleaseNumber, d trust.ReleaseDigest) error {
		if signer.Status == trust.Revoked {
			return fmt.Errorf("%w: its key %s is revoked: look at the release that it names, then sign it again (nightferry trust resign STORE)", trust.ErrUntrusted, signer.Public)
		}
		if n != number || d != release {
			return fmt.Errorf("%w: it names release %d (%s), not %d (%s)", ErrConflict, n, d.Short(), number, release.Short())
		}
		return nil
	})
}

// resignHead signs the head again if vouch returns nil for its key and the release
// that it names.
func (p Publisher) resignHead(ctx context.Context, channel string, vouch func(*trust.Key, trust.ReleaseNumber, trust.ReleaseDigest) error) (number trust.ReleaseNumber, err error) {
	if err := p.repo.trust.allows(PublicOf(p.key), trust.Heads); err != nil {
		return 0, err
	}
	scope := p.repo.identity.keys.Name(channel)
	b, info, err := readObject(ctx, p.repo.objects.store, HeadKey(scope), trust.MaxHead)
	if err != nil {
		return 0, err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	number = trust.ReleaseNumber(s.Subject.Number)
	if err := s.Verify(p.repo.identity.subject(trust.HeadKind, trust.HeadVersion, scope, uint64(number))); err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	doc, _ := p.repo.trust.Current()
	signer := doc.Find(s.Signer)
	if signer == nil {
		return 0, fmt.Errorf("head of %q: %w: key %s was never one of this repository's", channel, trust.ErrUntrusted, s.Signer)
	}
	h, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return 0, err
	}
	if seen := p.repo.seen.release(channel); number < seen {
		return 0, fmt.Errorf("head of %q is release %d, release %d was seen: %w", channel, number, seen, ErrOlder)
	}
	if err := vouch(signer, number, h.Release); err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	return number, p.putHead(ctx, channel, number, h.Release, info.ETag)
}
