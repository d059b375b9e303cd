package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/bucket"
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

// Commit describes a release to publish.
type Commit struct {
	Release manifest.Release   // Parent is set by Publish
	Parent  *Head              // the head it follows; nil for a channel's first
	Key     ed25519.PrivateKey // must be an active release and head key
	Started time.Time          // the store's clock when the index root was first read
	Lost    uint64             // that root's count of forgotten packs
	Subject halt.Subject       // who publishes: the halt orders are read once more before the head moves
}

// Publish signs and stores the release, then moves the head by
// compare-and-swap. Of two concurrent pushes exactly one succeeds; the other
// gets ErrConflict. Every chunk and page must be in the index already. If a halt order stops c.Subject, the head does
// not move and the error is a *halt.Error.
func (r *Repo) Publish(ctx context.Context, c Commit) (*Release, error) {
	if err := r.doc.Allows(PublicOf(c.Key), trust.Heads); err != nil {
		return nil, err
	}
	number, etag := uint64(1), ""
	if c.Parent != nil {
		number, etag, c.Release.Parent = c.Parent.Number+1, c.Parent.ETag, c.Parent.Release
	}
	channel := c.Release.Channel
	if c.Parent == nil || c.Parent.Behind {
		number = max(number, r.seenNumber(channel)+1) // sites refuse older numbers
	}
	payload, err := manifest.EncodeRelease(&c.Release)
	if err != nil {
		return nil, err
	}
	if payload, err = r.sealPayload(manifest.ReleaseKind, payload); err != nil {
		return nil, err
	}
	out, date, err := r.putRelease(ctx, c, number, payload)
	if err != nil {
		return nil, err
	}
	if err := r.inTime(c.Started, date); err != nil {
		return nil, err
	}
	if err := forgotNothing(ctx, r, c.Lost); err != nil {
		return nil, err
	}
	// The final look, however recent the previous one.
	if err := r.CheckHalt(ctx, c.Subject); err != nil {
		return nil, err
	}
	err = r.putHead(ctx, c.Key, channel, out.Number, out, etag)
	for range casTries {
		if !errors.Is(err, ErrConflict) || c.Parent == nil {
			break
		}
		// A head that was only signed again is still the parent.
		now, headErr := r.PushHead(ctx, channel)
		if headErr != nil {
			return nil, headErr
		}
		if now.Number != c.Parent.Number || now.Release != c.Parent.Release {
			break
		}
		if err := r.inTime(c.Started, now.Date); err != nil {
			return nil, err
		}
		err = r.putHead(ctx, c.Key, channel, out.Number, out, now.ETag)
	}
	if err != nil {
		return nil, err
	}
	r.seen.acceptHead(channel, out.Number)
	return out, nil
}

// forgotNothing returns ErrForgotten if the index root's count of forgotten
// packs differs from before: chunks that were stored then may be lost.
func forgotNothing(ctx context.Context, r *Repo, before uint64) error {
	x, err := r.Index(ctx)
	if err != nil {
		return err
	}
	if x.root.Lost != before {
		return fmt.Errorf("%w: nothing was published; run it again, it stores what is lacking", ErrForgotten)
	}
	return nil
}

// Grace returns how long a pack stays condemned before it may be deleted.
func (r *Repo) Grace() time.Duration { return time.Duration(r.format.Grace) * time.Second }

// inTime returns ErrTooLong if more than half the grace period has passed from since to now, by the
// store's clock. Objects seen or stored at since may soon be deleted; the other half leaves time for the
// next call.
func (r *Repo) inTime(since, now time.Time) error {
	if since.IsZero() || now.Sub(since) <= r.Grace()/2 {
		return nil
	}
	return fmt.Errorf("%w (%v, at most %v): nothing was published; run it again, it resumes where this one ended", ErrTooLong, now.Sub(since).Round(time.Second), r.Grace()/2)
}

// putRelease stores the release under the first free number. A number that is taken while the head has
// not moved belongs to a push that died or that may still lose: only the head decides which push wins.
func (r *Repo) putRelease(ctx context.Context, c Commit, number uint64, payload []byte) (*Release, time.Time, error) {
	const few = 8
	channel := c.Release.Channel
	for try := range casTries {
		b, err := trust.Sign(c.Key, r.headSubject(manifest.ReleaseKind, manifest.ReleaseVersion, channel, number), payload)
		if err != nil {
			return nil, time.Time{}, err
		}
		key := ReleaseKey(r.keys.Name(channel), number)
		info, err := putObject(ctx, r.store, key, b, bucket.Cond{Absent: true})
		if err == nil {
			return &Release{Number: number, Digest: digest.Of(b), Signer: PublicOf(c.Key), Release: c.Release}, info.Date, nil
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, time.Time{}, err
		}
		now, err := r.PushHead(ctx, channel)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, time.Time{}, err
		}
		if now != nil && (c.Parent == nil || now.Number != c.Parent.Number) {
			return nil, time.Time{}, r.conflictError(channel, now.Number)
		}
		number++
		if try >= few { // this many pushes have died since the last that succeeded
			if number, err = r.pastAll(ctx, channel, number); err != nil {
				return nil, time.Time{}, err
			}
		}
	}
	return nil, time.Time{}, fmt.Errorf("release %d of %q: every number is taken", number, channel)
}

// pastAll returns the first number, from number on, above which a channel has no
// release.
func (r *Repo) pastAll(ctx context.Context, channel string, number uint64) (uint64, error) {
	scope := r.keys.Name(channel)
	err := r.store.List(ctx, path.Dir(ReleaseKey(scope, number))+"/", func(i bucket.Info) error {
		if n, err := strconv.ParseUint(path.Base(i.Key), 10, 64); err == nil && i.Key == ReleaseKey(scope, n) && n < math.MaxUint64 {
			number = max(number, n+1)
		}
		return nil
	})
	return number, err
}

func (r *Repo) conflictError(channel string, number uint64) error {
	return fmt.Errorf("%w: release %d of %q was published meanwhile; nothing of it is lost, push again on top of it", ErrConflict, number, channel)
}

func (r *Repo) putHead(ctx context.Context, key ed25519.PrivateKey, channel string, number uint64, rel *Release, etag string) error {
	h := trust.Head{Release: rel.Digest, Expires: r.StoreTime().Add(HeadLife).Unix()}
	payload, err := h.Encode()
	if err != nil {
		return err
	}
	b, err := trust.Sign(key, r.headSubject(trust.HeadKind, trust.HeadVersion, channel, number), payload)
	if err != nil {
		return err
	}
	_, err = putObject(ctx, r.store, HeadKey(r.keys.Name(channel)), b, replaceCond(etag))
	if errors.Is(err, fs.ErrExist) {
		now, headErr := r.PushHead(ctx, channel)
		if headErr != nil {
			return headErr
		}
		return r.conflictError(channel, now.Number)
	}
	return err
}

// Resign signs a channel's head again: same release, new expiry. The head's
// signature must be good, but its key may be retired or revoked. The caller
// vouches for the release that the head names, and so must have checked it.
// Programs call Renew.
func (r *Repo) Resign(ctx context.Context, channel string, key ed25519.PrivateKey) (number uint64, err error) {
	return r.resignHead(ctx, channel, key, func(*trust.Key, uint64, digest.Digest) error { return nil })
}

// Renew is Resign for callers that do not check the release. It signs the head
// again only if the head names the release that the caller knows to be good,
// else it returns ErrConflict. It never renews a head of a revoked key, because
// that would undo the revocation, and returns trust.ErrUntrusted.
func (r *Repo) Renew(ctx context.Context, channel string, key ed25519.PrivateKey, number uint64, release digest.Digest) (uint64, error) {
	return r.resignHead(ctx, channel, key, func(signer *trust.Key, n uint64, d digest.Digest) error {
		if signer.Status == trust.Revoked {
			return fmt.Errorf("%w: its key %s is revoked: look at what it names, then sign it again (nightferry trust resign STORE)", trust.ErrUntrusted, signer.Public)
		}
		if n != number || d != release {
			return fmt.Errorf("%w: it names release %d (%s), not %d (%s)", ErrConflict, n, d.Short(), number, release.Short())
		}
		return nil
	})
}

// resignHead signs the head again if vouch returns nil for its key and the release
// that it names.
func (r *Repo) resignHead(ctx context.Context, channel string, key ed25519.PrivateKey, vouch func(*trust.Key, uint64, digest.Digest) error) (number uint64, err error) {
	if err := r.doc.Allows(PublicOf(key), trust.Heads); err != nil {
		return 0, err
	}
	at := HeadKey(r.keys.Name(channel))
	b, info, err := readObject(ctx, r.store, at, trust.MaxHead)
	if err != nil {
		return 0, err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	number = s.Subject.Number
	if err := s.Verify(r.headSubject(trust.HeadKind, trust.HeadVersion, channel, number)); err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	signer := r.doc.Find(s.Signer)
	if signer == nil {
		return 0, fmt.Errorf("head of %q: %w: key %s was never one of this repository's", channel, trust.ErrUntrusted, s.Signer)
	}
	h, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return 0, err
	}
	if seen := r.seenNumber(channel); number < seen {
		return 0, fmt.Errorf("head of %q is release %d, release %d was seen: %w", channel, number, seen, ErrOlder)
	}
	if err := vouch(signer, number, h.Release); err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	return number, r.putHead(ctx, key, channel, number, &Release{Digest: h.Release}, info.ETag)
}

// Channels returns the names of all channels that have a head.
func (r *Repo) Channels(ctx context.Context) ([]string, error) {
	var scopes []string
	err := r.store.List(ctx, "channels/", func(i bucket.Info) error {
		if path.Base(i.Key) == "head" {
			scopes = append(scopes, strings.TrimSuffix(strings.TrimPrefix(i.Key, "channels/"), "/head"))
		}
		return nil
	})
	if err != nil || r.keys == nil {
		return scopes, err
	}
	for i, scope := range scopes {
		if scopes[i], err = r.channelOf(ctx, scope); err != nil {
			return nil, err
		}
	}
	return scopes, nil
}

// channelOf finds an opaque channel's name in its newest release.
func (r *Repo) channelOf(ctx context.Context, scope string) (string, error) {
	b, _, err := readObject(ctx, r.store, HeadKey(scope), trust.MaxHead)
	if err != nil {
		return "", err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return "", err
	}
	h, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return "", err
	}
	rel, err := r.StoredRelease(ctx, scope, s.Subject.Number, h.Release)
	if err != nil {
		return "", err
	}
	return rel.Channel, nil
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
func (r *Repo) ReleaseBelow(ctx context.Context, channel string, head *Head, number uint64) (rel *Release, err error) {
	if slices.ContainsFunc(r.doc.Keys, func(k trust.Key) bool { return k.Status == trust.Revoked }) {
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
	return r.Release(ctx, channel, number, digest.Digest{})
}

// PutHalt replaces the halt object with the halt orders as change leaves them, and increments the epoch. If the store
// holds no valid orders (OrdersLost), it starts from the orders of an old object that was put back, or from none. The
// new epoch then exceeds the highest one seen.
func (r *Repo) PutHalt(ctx context.Context, key ed25519.PrivateKey, change func(o *halt.Orders) error) (uint64, error) {
	h, err := r.MergeHalt(ctx, key, func(stored *HaltObject, _ bool) (uint64, error) { return 0, change(stored.Orders) })
	if err != nil {
		return 0, err
	}
	return h.Epoch, nil
}

// MergeHalt is PutHalt for a caller that has orders of its own. change receives
// the stored orders, and whether the store has lost them. The new epoch exceeds
// the stored one and the floor that change returns.
func (r *Repo) MergeHalt(ctx context.Context, key ed25519.PrivateKey, change func(stored *HaltObject, lost bool) (floor uint64, err error)) (*HaltObject, error) {
	if err := r.doc.Allows(PublicOf(key), trust.Halts); err != nil {
		return nil, fmt.Errorf("sign the halt object: %w", err)
	}
	for range casTries {
		h, etag, err := r.readHalt(ctx)
		lost := OrdersLost(err)
		switch {
		case err != nil && !lost:
			return nil, err
		case lost && !errors.Is(err, ErrOlder):
			h = &HaltObject{Orders: &halt.Orders{}}
		}
		if lost {
			h.Epoch = r.Memory().Halt
		}
		floor, err := change(h, lost)
		if err != nil {
			return nil, err
		}
		h.Epoch = max(h.Epoch, floor) + 1
		if h.Raw, err = r.SignHalt(key, h.Epoch, h.Orders); err != nil {
			return nil, err
		}
		_, err = putObject(ctx, r.store, haltKey, h.Raw, replaceCond(etag))
		if err == nil {
			r.seen.acceptHalt(h.Epoch)
			return h, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("replace the halt object: other writers were faster %d times", casTries)
}

// SignHalt makes the halt object of an epoch without storing it, so that the
// Core can send it to sites while the store is unreachable.
func (r *Repo) SignHalt(key ed25519.PrivateKey, epoch uint64, o *halt.Orders) ([]byte, error) {
	payload, err := o.Encode()
	if err != nil {
		return nil, err
	}
	if payload, err = r.sealPayload(halt.Kind, payload); err != nil {
		return nil, err
	}
	return trust.Sign(key, trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: r.format.Repo, Number: epoch}, payload)
}

// OpenHalt reads a halt object from any source and checks its signature. If the
// object comes from a site, the caller must also check with AllowsHalt that its
// key may sign halts now.
func (r *Repo) OpenHalt(b []byte) (*HaltObject, error) {
	h, _, err := r.openHalt(b)
	return h, err
}

// AllowsHalt reports whether the signer of a halt object may sign halts now.
func (r *Repo) AllowsHalt(b []byte) error {
	_, signer, err := r.openHalt(b)
	if err == nil {
		err = r.doc.Allows(signer, trust.Halts)
	}
	return err
}

func (r *Repo) putHalt(ctx context.Context, key ed25519.PrivateKey, epoch uint64, o *halt.Orders, c bucket.Cond) error {
	b, err := r.SignHalt(key, epoch, o)
	if err != nil {
		return err
	}
	_, err = putObject(ctx, r.store, haltKey, b, c)
	return err
}
