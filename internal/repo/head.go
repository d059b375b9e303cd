package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// Head is a channel's head as read and verified.
type Head struct {
	Number  uint64
	Release digest.Digest
	Expires time.Time
	Expired bool // it no longer proves releases newer than the applied one
	ETag    string
	Date    time.Time // the store's clock when it was read
	Signer  trust.Public
	// Behind means that the store holds less than was seen before: see
	// PushHead.
	Behind bool
}

// Release is a release as read and verified.
type Release struct {
	Number uint64
	Digest digest.Digest // SHA-256 of the release object
	Signer trust.Public
	manifest.Release
}

func (r *Repo) headSubject(kind string, version uint16, channel string, number uint64) trust.Subject {
	return trust.Subject{Kind: kind, Version: version, Repo: r.format.Repo, Scope: r.keys.Name(channel), Number: number}
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
	err := r.readGood(ctx, HeadKey(r.keys.Name(channel)), trust.MaxHead, func(b []byte, info bucket.Info) (err error) {
		h, err = r.acceptHead(channel, b, info)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		if seen := r.seenNumber(channel); seen > 0 {
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
	err = r.readGood(ctx, HeadKey(r.keys.Name(channel)), trust.MaxHead, func(b []byte, info bucket.Info) (err error) {
		h, err = r.parseHead(channel, b, info)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		// The release that the lost head named holds the same facts.
		seen := r.seenNumber(channel)
		rel, err := r.Release(ctx, channel, seen, digest.Digest{})
		if errors.Is(err, trust.ErrUntrusted) || errors.Is(err, frame.ErrDamaged) {
			return nil, fmt.Errorf("the head of %q is gone, and nothing can build on what it named: %w: put the head back and sign it again (nightferry trust resign STORE), or delete %s, and push: that begins the channel anew, by a higher number",
				channel, err, ReleaseKey(r.keys.Name(channel), seen))
		}
		if err != nil {
			return nil, err
		}
		return &Head{Number: rel.Number, Release: rel.Digest, Expires: r.StoreTime(), Signer: rel.Signer, Behind: true}, nil
	}
	if err != nil {
		return nil, err
	}
	h.Behind = h.Number < r.seenNumber(channel)
	return h, nil
}

// parseHead proves a head, regardless of heads seen before.
func (r *Repo) parseHead(channel string, b []byte, info bucket.Info) (*Head, error) {
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	if err := s.Verify(r.headSubject(trust.HeadKind, trust.HeadVersion, channel, s.Subject.Number)); err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	if err := r.doc.Allows(s.Signer, trust.Heads); err != nil {
		return nil, fmt.Errorf("head of %q: %w: sign it again with an active key (nightferry trust resign STORE)", channel, err)
	}
	p, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return nil, fmt.Errorf("head of %q: %w", channel, err)
	}
	expires := time.Unix(p.Expires, 0)
	return &Head{Number: s.Subject.Number, Release: p.Release, Expires: expires, Expired: r.now().After(expires), ETag: info.ETag, Date: info.Date, Signer: s.Signer}, nil
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

func (r *Repo) seenNumber(channel string) uint64 { return r.Memory().Heads[channel] }

// Release reads a release. want is the digest from a verified head or a
// verified child. With the zero Digest, the signer alone decides: its key must
// be active or retired.
func (r *Repo) Release(ctx context.Context, channel string, number uint64, want digest.Digest) (*Release, error) {
	return r.releaseAt(ctx, r.keys.Name(channel), fmt.Sprintf("release %d of %q", number, channel), number, want)
}

// HaltObject is a halt object that was read and verified.
type HaltObject struct {
	Raw    []byte // as it is stored and sent to sites
	Epoch  uint64
	Orders *halt.Orders
}

// Halts reads the active orders and the epoch.
func (r *Repo) Halts(ctx context.Context) (*halt.Orders, uint64, string, error) {
	h, etag, err := r.readHalt(ctx)
	if err != nil {
		return nil, 0, "", err
	}
	return h.Orders, h.Epoch, etag, nil
}

// Halt reads the halt object.
func (r *Repo) Halt(ctx context.Context) (*HaltObject, error) {
	h, _, err := r.readHalt(ctx)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// OrdersLost reports whether an error of Halts means that the store does not
// hold the halt orders in force. The object is then missing, damaged, an old
// one that was put back, or signed by an untrusted key. PutHalt replaces such
// an object.
func OrdersLost(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrOlder) || errors.Is(err, trust.ErrUntrusted) || errors.Is(err, frame.ErrDamaged) || errors.Is(err, seal.ErrOpen)
}

// readHalt is Halt, but also returns an object that is older than one seen
// before, and the ETag of a refused object: a writer needs them.
func (r *Repo) readHalt(ctx context.Context) (h *HaltObject, etag string, err error) {
	err = r.readGood(ctx, haltKey, halt.Max, func(b []byte, info bucket.Info) (err error) {
		h, err = r.acceptHalt(b)
		etag = info.ETag
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("the bucket's halt object is gone, nobody could stop this run: restore it with nightferry resume --all STORE: %w", err)
	case errors.Is(err, ErrOlder) || !OrdersLost(err):
		return h, etag, err
	case etag == "": // too large to be read at all
		_, info, _ := readObject(ctx, r.store, haltKey, halt.Max)
		etag = info.ETag
	}
	return nil, etag, fmt.Errorf("the bucket's halt object does not count, nobody could stop this run: replace it with nightferry resume --all STORE: %w", err)
}

// openHalt checks the signature of an object and decodes it.
func (r *Repo) openHalt(b []byte) (*HaltObject, trust.Public, error) {
	s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, b)
	if err != nil {
		return nil, trust.Public{}, fmt.Errorf("halt: %w", err)
	}
	epoch := s.Subject.Number
	if err := s.Verify(trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: r.format.Repo, Number: epoch}); err != nil {
		return nil, s.Signer, fmt.Errorf("halt: %w", err)
	}
	payload, err := r.openPayload(halt.Kind, s.Payload)
	if err != nil {
		return nil, s.Signer, fmt.Errorf("halt: %w", err)
	}
	orders, err := halt.Decode(payload)
	return &HaltObject{Raw: b, Epoch: epoch, Orders: orders}, s.Signer, err
}

func (r *Repo) acceptHalt(b []byte) (*HaltObject, error) {
	h, signer, err := r.openHalt(b)
	if err == nil {
		err = r.doc.Allows(signer, trust.Halts)
	}
	if err != nil {
		return nil, err
	}
	if higher, ok := r.seen.acceptHalt(h.Epoch); !ok {
		return h, fmt.Errorf("the bucket's halt object has epoch %d, %d was seen: %w: an old state of the bucket was put back", h.Epoch, higher, ErrOlder)
	}
	return h, nil
}

// CheckHalt returns a *halt.Error if an active halt order stops s, and nil if
// none does. It returns any other error if this is unknown: then nothing may
// start.
func (r *Repo) CheckHalt(ctx context.Context, s halt.Subject) error {
	orders, _, _, err := r.Halts(ctx)
	if err != nil {
		return err
	}
	if o := orders.Find(s); o != nil {
		return &halt.Error{Order: *o}
	}
	return nil
}

// replaceCond returns the condition under which a mutable object may be replaced.
func replaceCond(etag string) bucket.Cond {
	if etag == "" {
		return bucket.Cond{Absent: true}
	}
	return bucket.Cond{ETag: etag}
}
