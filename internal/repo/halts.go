package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"nightferry/internal/bucket"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// Halts reads, signs and merges the halt object, which holds all active halt orders. It judges each new object by the
// newest trust document in the store, because the object's key may have been made or revoked since the repository was
// opened. It is safe for concurrent use.
type Halts struct {
	objects  *objects
	identity identity
	trust    *TrustChain
	seen     *seen

	mu   sync.Mutex
	last []byte // the last object that was accepted; nil: none since the repository was opened
}

// HaltObject is a halt object that was read and verified.
type HaltObject struct {
	Raw    []byte // as it is stored and sent to sites
	Epoch  uint64
	Orders *halt.Orders
}

// Read reads the halt object.
func (h *Halts) Read(ctx context.Context) (*HaltObject, error) {
	stored, _, err := h.read(ctx)
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// errNoJudgement means that the newest trust document could not be read, so that the halt object may count or not.
var errNoJudgement = errors.New("the halt object cannot be checked: a newer trust document cannot be read or is not trusted")

// OrdersLost reports whether an error of Read means that the store does not
// hold the halt orders in force. The object is then missing, damaged, an old
// one that was put back, or signed by an untrusted key. Put replaces such an
// object.
func OrdersLost(err error) bool {
	if errors.Is(err, errNoJudgement) {
		return false
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrOlder) || errors.Is(err, trust.ErrUntrusted) || errors.Is(err, frame.ErrDamaged) || errors.Is(err, seal.ErrOpen)
}

// read is Read, but also returns an object that is older than one seen
// before, and the ETag of a refused object: a writer needs them.
func (h *Halts) read(ctx context.Context) (stored *HaltObject, etag string, err error) {
	err = h.objects.readGood(ctx, haltKey, halt.Max, func(b []byte, info bucket.Info) (err error) {
		stored, err = h.accept(ctx, b)
		etag = info.ETag
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("the bucket's halt object is gone, nobody could stop this run: %s: %w", giveAgain, err)
	case errors.Is(err, ErrOlder) || !OrdersLost(err):
		return stored, etag, err
	case etag == "": // too large to be read at all
		_, info, _ := readObject(ctx, h.objects.store, haltKey, halt.Max)
		etag = info.ETag
	}
	return nil, etag, fmt.Errorf("the bucket's halt object does not count, nobody could stop this run: %s: %w", giveAgain, err)
}

// giveAgain is the remedy for lost halt orders. A new object without them lifts them, also at sites that still obey
// them.
const giveAgain = "if a halt is in force (nightferry-agent status at a site), give it again with nightferry halt STORE; if none is, restore it with nightferry resume --all STORE"

// accept proves a halt object and that no newer one was seen.
func (h *Halts) accept(ctx context.Context, b []byte) (*HaltObject, error) {
	object, signer, err := h.verify(b)
	if err == nil && (h.isNew(b) || h.trust.allows(signer, trust.Halts) != nil) {
		if err = h.trust.follow(ctx); err != nil {
			err = fmt.Errorf("%w: %w", errNoJudgement, err)
		}
	}
	if err == nil {
		err = h.trust.allows(signer, trust.Halts)
	}
	if err != nil {
		return nil, err
	}
	h.note(b)
	if higher, ok := h.seen.acceptHalt(object.Epoch); !ok {
		return object, fmt.Errorf("the bucket's halt object has epoch %d, %d was seen: %w: an old state of the bucket was put back", object.Epoch, higher, ErrOlder)
	}
	return object, nil
}

func (h *Halts) note(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = b
}

// isNew reports whether an object is another one than the last. Of the first one it does not matter: the trust
// documents were read when the repository was opened.
func (h *Halts) isNew(b []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last != nil && !bytes.Equal(h.last, b)
}

// verify checks the signature of an object and decodes it.
func (h *Halts) verify(b []byte) (*HaltObject, trust.Public, error) {
	s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, b)
	if err != nil {
		return nil, trust.Public{}, fmt.Errorf("halt: %w", err)
	}
	epoch := s.Subject.Number
	if err := s.Verify(h.subject(epoch)); err != nil {
		return nil, s.Signer, fmt.Errorf("halt: %w", err)
	}
	payload, err := h.identity.openPayload(halt.Kind, s.Payload)
	if err != nil {
		return nil, s.Signer, fmt.Errorf("halt: %w", err)
	}
	orders, err := halt.Decode(payload)
	return &HaltObject{Raw: b, Epoch: epoch, Orders: orders}, s.Signer, err
}

func (h *Halts) subject(epoch uint64) trust.Subject {
	return h.identity.subject(halt.Kind, halt.Version, "", epoch)
}

// Check returns a *halt.Error if an active halt order stops s, and nil if
// none does. It returns any other error if this is unknown: then nothing may
// start.
func (h *Halts) Check(ctx context.Context, s halt.Subject) error {
	stored, err := h.Read(ctx)
	if err != nil {
		return err
	}
	if o := stored.Orders.Find(s); o != nil {
		return &halt.Error{Order: *o}
	}
	return nil
}

// Put replaces the halt object with the halt orders as change leaves them, and increments the epoch. If the store
// holds no valid orders (OrdersLost), it starts from the orders of an old object that was put back, or from none. The
// new epoch then exceeds the highest one seen.
func (h *Halts) Put(ctx context.Context, key ed25519.PrivateKey, change func(o *halt.Orders) error) (epoch uint64, err error) {
	object, err := h.Merge(ctx, key, func(stored *HaltObject, _ bool) (uint64, error) { return 0, change(stored.Orders) })
	if err != nil {
		return 0, err
	}
	return object.Epoch, nil
}

// Merge is Put for a caller that has orders of its own. change receives
// the stored orders, and whether the store has lost them. The new epoch exceeds
// the stored one and the floor that change returns.
func (h *Halts) Merge(ctx context.Context, key ed25519.PrivateKey, change func(stored *HaltObject, lost bool) (floor uint64, err error)) (*HaltObject, error) {
	if err := h.trust.allows(PublicOf(key), trust.Halts); err != nil {
		return nil, fmt.Errorf("sign the halt object: %w", err)
	}
	for range casTries {
		object, etag, err := h.read(ctx)
		lost := OrdersLost(err)
		switch {
		case err != nil && !lost:
			return nil, err
		case lost && !errors.Is(err, ErrOlder):
			object = &HaltObject{Orders: &halt.Orders{}}
		}
		if lost {
			object.Epoch = h.seen.current().Halt
		}
		floor, err := change(object, lost)
		if err != nil {
			return nil, err
		}
		object.Epoch = max(object.Epoch, floor) + 1
		if object.Raw, err = h.Sign(key, object.Epoch, object.Orders); err != nil {
			return nil, err
		}
		_, err = putObject(ctx, h.objects.store, haltKey, object.Raw, replaceCond(etag))
		if err == nil {
			h.seen.acceptHalt(object.Epoch)
			h.note(object.Raw)
			return object, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("replace the halt object: other writers were faster %d times", casTries)
}

// create stores the first halt object, without orders.
func (h *Halts) create(ctx context.Context, key ed25519.PrivateKey) error {
	b, err := h.Sign(key, 1, &halt.Orders{})
	if err != nil {
		return err
	}
	return putNew(ctx, h.objects.store, haltKey, b)
}

// Sign makes the halt object of an epoch without storing it, so that the
// Core can send it to sites while the store is unreachable.
func (h *Halts) Sign(key ed25519.PrivateKey, epoch uint64, o *halt.Orders) ([]byte, error) {
	payload, err := o.Encode()
	if err != nil {
		return nil, err
	}
	if payload, err = h.identity.sealPayload(halt.Kind, payload); err != nil {
		return nil, err
	}
	return trust.Sign(key, h.subject(epoch), payload)
}

// Open reads a halt object from any source and checks its signature. If the
// object comes from a site, the caller must also check with Allows that its
// key may sign halts now.
func (h *Halts) Open(b []byte) (*HaltObject, error) {
	object, _, err := h.verify(b)
	return object, err
}

// Allows reports whether the signer of a halt object may sign halts now.
func (h *Halts) Allows(b []byte) error {
	_, signer, err := h.verify(b)
	if err == nil {
		err = h.trust.allows(signer, trust.Halts)
	}
	return err
}
