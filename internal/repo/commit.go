package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// ErrConflict says that another push published to the channel first.
var ErrConflict = errors.New("another push was faster")

// ErrTooLong says that a push ran longer than half the grace period, so that
// gc might delete what it relies on.
var ErrTooLong = errors.New("the push ran longer than half the grace period")

// Commit describes a release to publish.
type Commit struct {
	Release manifest.Release   // Parent is set by Publish
	Parent  *Head              // the head it follows; nil for a channel's first
	Key     ed25519.PrivateKey // must be an active release and head key
	Started time.Time          // the store's clock when the index root was first read
}

// Publish signs and stores the release, then moves the head by
// compare-and-swap: of two concurrent pushes exactly one succeeds, the other
// gets ErrConflict. Every chunk and page must be in the index already.
func (r *Repo) Publish(ctx context.Context, c Commit) (*Release, error) {
	if err := r.doc.Allows(PublicOf(c.Key), trust.Heads); err != nil {
		return nil, err
	}
	number, etag := uint64(1), ""
	if c.Parent != nil {
		number, etag, c.Release.Parent = c.Parent.Number+1, c.Parent.ETag, c.Parent.Release
	}
	channel := c.Release.Channel
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
	if grace := time.Duration(r.format.Grace) * time.Second; !c.Started.IsZero() && date.Sub(c.Started) > grace/2 {
		return nil, fmt.Errorf("%w (%v of %v): nothing was published; push again, it resumes where this one ended", ErrTooLong, date.Sub(c.Started).Round(time.Second), grace/2)
	}
	if err := r.putHead(ctx, c.Key, channel, out.Number, out, etag); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.memory.Heads[channel] = out.Number
	r.mu.Unlock()
	return out, nil
}

// putRelease stores the release under the first free number. A number that
// another took without moving the head belongs to a push that died or is about
// to lose: the head decides, not the number.
func (r *Repo) putRelease(ctx context.Context, c Commit, number uint64, payload []byte) (*Release, time.Time, error) {
	channel := c.Release.Channel
	for range casTries {
		b, err := trust.Sign(c.Key, r.subject(manifest.ReleaseKind, manifest.ReleaseVersion, channel, number), payload)
		if err != nil {
			return nil, time.Time{}, err
		}
		body := bucket.Bytes(b)
		key := ReleaseKey(r.keys.Name(channel), number)
		info, err := r.store.Put(ctx, key, body, bucket.Cond{Absent: true})
		if err := settle(ctx, r.store, key, b, err); err == nil {
			return &Release{Number: number, Digest: body.SHA256, Signer: PublicOf(c.Key), Release: c.Release}, info.Date, nil
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, time.Time{}, err
		}
		now, err := r.Head(ctx, channel)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, time.Time{}, err
		}
		if now != nil && (c.Parent == nil || now.Number != c.Parent.Number) {
			return nil, time.Time{}, r.conflict(channel, now.Number)
		}
		number++
	}
	return nil, time.Time{}, fmt.Errorf("release %d of %q: every number is taken", number, channel)
}

func (r *Repo) conflict(channel string, number uint64) error {
	return fmt.Errorf("%w: release %d of %q was published meanwhile; nothing of it is lost, push again on top of it", ErrConflict, number, channel)
}

func (r *Repo) putHead(ctx context.Context, key ed25519.PrivateKey, channel string, number uint64, rel *Release, etag string) error {
	h := trust.Head{Release: rel.Digest, Expires: r.now().Add(HeadLife).Unix()}
	payload, err := h.Encode()
	if err != nil {
		return err
	}
	b, err := trust.Sign(key, r.subject(trust.HeadKind, trust.HeadVersion, channel, number), payload)
	if err != nil {
		return err
	}
	at := HeadKey(r.keys.Name(channel))
	_, err = r.store.Put(ctx, at, bucket.Bytes(b), cond(etag))
	err = settle(ctx, r.store, at, b, err)
	if errors.Is(err, fs.ErrExist) {
		now, headErr := r.Head(ctx, channel)
		if headErr != nil {
			return headErr
		}
		return r.conflict(channel, now.Number)
	}
	return err
}

// Resign signs a channel's head again: same release, new expiry. The head's
// signature must be good, but its key may be retired or revoked: whoever calls
// this vouches for what the head names.
func (r *Repo) Resign(ctx context.Context, channel string, key ed25519.PrivateKey) (number uint64, err error) {
	if err := r.doc.Allows(PublicOf(key), trust.Heads); err != nil {
		return 0, err
	}
	at := HeadKey(r.keys.Name(channel))
	b, info, err := read(ctx, r.store, at, trust.MaxHead)
	if err != nil {
		return 0, err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	number = s.Subject.Number
	if err := s.Verify(r.subject(trust.HeadKind, trust.HeadVersion, channel, number)); err != nil {
		return 0, fmt.Errorf("head of %q: %w", channel, err)
	}
	if r.doc.Find(s.Signer) == nil {
		return 0, fmt.Errorf("head of %q: %w: key %s was never one of this repository's", channel, trust.ErrUntrusted, s.Signer)
	}
	h, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return 0, err
	}
	if seen := r.seen(channel); number < seen {
		return 0, fmt.Errorf("head of %q is release %d, release %d was seen: %w", channel, number, seen, ErrOlder)
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

// channelOf opens an opaque channel name: its newest release tells it.
func (r *Repo) channelOf(ctx context.Context, scope string) (string, error) {
	b, _, err := read(ctx, r.store, HeadKey(scope), trust.MaxHead)
	if err != nil {
		return "", err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return "", err
	}
	b, _, err = read(ctx, r.store, ReleaseKey(scope, s.Subject.Number), manifest.MaxRelease+4096)
	if err != nil {
		return "", err
	}
	if s, err = trust.Parse(manifest.ReleaseKind, manifest.ReleaseVersion, manifest.MaxRelease+4096, b); err != nil {
		return "", err
	}
	payload, err := r.openPayload(manifest.ReleaseKind, s.Payload)
	if err != nil {
		return "", err
	}
	m, err := manifest.DecodeRelease(payload)
	if err != nil {
		return "", err
	}
	if r.keys.Name(m.Channel) != scope {
		return "", fmt.Errorf("channel %s: %w: its release belongs to another channel", scope, trust.ErrUntrusted)
	}
	return m.Channel, nil
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
		// below that has the digest the child names.
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

// PutHalt replaces the halt object by what change makes of the orders; the
// epoch grows by one.
func (r *Repo) PutHalt(ctx context.Context, key ed25519.PrivateKey, change func(o *halt.Orders, epoch uint64) error) (uint64, error) {
	for range casTries {
		orders, epoch, etag, err := r.Halts(ctx)
		if err != nil {
			return 0, err
		}
		if err := change(orders, epoch+1); err != nil {
			return 0, err
		}
		err = r.putHalt(ctx, key, epoch+1, orders, cond(etag))
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return epoch + 1, err
		}
	}
	return 0, fmt.Errorf("replace the halt object: other writers were faster %d times", casTries)
}

func (r *Repo) putHalt(ctx context.Context, key ed25519.PrivateKey, epoch uint64, o *halt.Orders, c bucket.Cond) error {
	payload, err := o.Encode()
	if err != nil {
		return err
	}
	if payload, err = r.sealPayload(halt.Kind, payload); err != nil {
		return err
	}
	b, err := trust.Sign(key, trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: r.format.Repo, Number: epoch}, payload)
	if err != nil {
		return err
	}
	_, err = r.store.Put(ctx, haltKey, bucket.Bytes(b), c)
	return settle(ctx, r.store, haltKey, b, err)
}
