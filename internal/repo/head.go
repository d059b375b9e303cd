package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// Head is a channel's head as read and verified.
type Head struct {
	Number  trust.ReleaseNumber
	Release trust.ReleaseDigest
	Expires time.Time
	Expired bool // it no longer proves releases newer than the applied one
	ETag    string
	Date    clock.Store // when it was read
	Signer  trust.Public
	// Behind means that the store holds less than was seen before: see
	// PushHead.
	Behind bool
}

// ErrNoRelease means that a channel has no release, or that there is no such
// channel.
var ErrNoRelease = errors.New("has no release yet")

// Head reads a channel's head. It returns fs.ErrNotExist if the channel has no
// release, ErrOlder if the head is older than one seen before, and
// trust.ErrUntrusted if no active key signed it.
func (r *Repo) Head(ctx context.Context, channel string) (*Head, error) {
	if err := manifest.CheckChannel(channel); err != nil {
		return nil, err
	}
	var h *Head
	err := r.objects.readGood(ctx, HeadKey(r.identity.keys.Name(channel)), trust.MaxHead, func(b []byte, info bucket.Info) (err error) {
		h, err = r.acceptHead(channel, b, info)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		if seen := r.seen.release(channel); seen > 0 {
			return nil, fmt.Errorf("channel %q has no head, but release %d was seen: %w: somebody removed it; push again from the Core", channel, seen, ErrOlder)
		}
		return nil, fmt.Errorf("channel %q %w: %w", channel, ErrNoRelease, err)
	}
	return h, err
}

// PushHead is Head for publishers, which repair a store that has lost data. If
// the head is missing, or an older one was put back, PushHead returns the head
// to publish on top of, with Behind set. It returns fs.ErrNotExist if there is
// nothing to build on. The next release gets a number that no site has seen.
func (r *Repo) PushHead(ctx context.Context, channel string) (*Head, error) {
	h, err := r.Head(ctx, channel)
	if !errors.Is(err, ErrOlder) {
		return h, err
	}
	err = r.objects.readGood(ctx, HeadKey(r.identity.keys.Name(channel)), trust.MaxHead, func(b []byte, info bucket.Info) (err error) {
		h, err = r.parseHead(channel, b, info)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		// The release that the lost head named holds the same facts.
		seen := r.seen.release(channel)
		rel, err := r.Release(ctx, channel, seen, trust.ReleaseDigest{})
		if errors.Is(err, trust.ErrUntrusted) || errors.Is(err, frame.ErrDamaged) {
			return nil, fmt.Errorf("the head of %q is gone, and nothing can build on what it named: %w: put the head back and sign it again (nightferry trust resign STORE), or delete %s, and push: that begins the channel anew, by a higher number",
				channel, err, ReleaseKey(r.identity.keys.Name(channel), seen))
		}
		if err != nil {
			return nil, err
		}
		return &Head{Number: rel.Number, Release: rel.Digest, Expires: r.StoreTime().Time(), Signer: rel.Signer, Behind: true}, nil
	}
	if err != nil {
		return nil, err
	}
	h.Behind = h.Number < r.seen.release(channel)
	return h, nil
}

// parseHead proves a head, regardless of heads seen before.
func (r *Repo) parseHead(channel string, b []byte, info bucket.Info) (*Head, error) {
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	if err := s.Verify(r.identity.subject(trust.HeadKind, trust.HeadVersion, r.identity.keys.Name(channel), s.Subject.Number)); err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	if err := r.trust.allows(s.Signer, trust.Heads); err != nil {
		return nil, fmt.Errorf("head of %q: %w: sign it again with an active key (nightferry trust resign STORE)", channel, err)
	}
	p, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	expires := time.Unix(p.Expires, 0)
	return &Head{Number: trust.ReleaseNumber(s.Subject.Number), Release: p.Release, Expires: expires, Expired: r.now().After(expires), ETag: info.ETag, Date: clock.StoreAt(info.Date), Signer: s.Signer}, nil
}

func (r *Repo) acceptHead(channel string, b []byte, info bucket.Info) (*Head, error) {
	h, err := r.parseHead(channel, b, info)
	if err != nil {
		return nil, err
	}
	if higher, ok := r.seen.acceptHead(channel, h.Number); !ok {
		return nil, fmt.Errorf("head of %q is release %d, release %d was seen: %w: an old state of the bucket was put back; push again from the Core", channel, h.Number, higher, ErrOlder)
	}
	return h, nil
}
