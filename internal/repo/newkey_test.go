package repo

import (
	"errors"
	"testing"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

func addOrder(o *halt.Orders) error {
	o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test", By: "me"})
	return nil
}

// A reader that opened the repository earlier obeys a halt order by a key that was made since, and no longer one by a
// key that was revoked since.
func TestHaltByAKeyMadeSince(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		reader, other := p.mustOpen(nil), p.mustOpen(nil)
		if err := reader.Halts().Check(ctx, halt.Subject{}); err != nil {
			t.Fatal(err)
		}
		if err := other.Trust().Put(ctx, p.root, keys(key(2, trust.Active), key(3, trust.Active))); err != nil {
			t.Fatal(err)
		}
		epoch, err := other.Halts().Put(ctx, seedKey(3), addOrder)
		if err != nil {
			t.Fatal(err)
		}
		var order *halt.Error
		if err := reader.Halts().Check(ctx, halt.Subject{}); !errors.As(err, &order) {
			t.Errorf("an order by a new key: %v", err)
		}
		if err := other.Trust().Put(ctx, p.root, keys(key(2, trust.Revoked), key(3, trust.Active))); err != nil {
			t.Fatal(err)
		}
		lift, err := other.Halts().Sign(p.key, epoch+1, &halt.Orders{})
		if err != nil {
			t.Fatal(err)
		}
		p.put(haltKey, lift)
		if err := reader.Halts().Check(ctx, halt.Subject{}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a revoked key lifts the order: %v", err)
		}
	})
}

// If the next trust document is forged, nothing is known of a new halt object. The object is not replaced, because its
// orders may be in force.
func TestHaltBehindAForgedTrustDocument(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		r := p.mustOpen(nil)
		if err := r.Halts().Check(ctx, halt.Subject{}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.mustOpen(nil).Halts().Put(ctx, p.key, addOrder); err != nil {
			t.Fatal(err)
		}
		p.put(TrustKey(2), p.get(TrustKey(1)))
		if _, err := r.Halts().Read(ctx); !errors.Is(err, trust.ErrUntrusted) || OrdersLost(err) {
			t.Errorf("lost %t: %v", OrdersLost(err), err)
		}
		before := p.get(haltKey)
		if _, err := r.Halts().Put(ctx, p.key, func(*halt.Orders) error { return nil }); err == nil || string(p.get(haltKey)) != string(before) {
			t.Errorf("the halt object was replaced: %v", err)
		}
	})
}

// TestUntrustedIsNotDamaged: an object is reported as damaged only if another copy of it differs.
func TestUntrustedIsNotDamaged(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		flips := 0
		var reported []error
		store := testbed.FlipReads(p.store, func(key string, _, _ int64) (int64, bool) {
			flips--
			return 40, key == haltKey && flips >= 0
		})
		r, err := Open(ctx, store, Options{Key: p.seal, Now: time.Now, OnRetry: func(err error) { reported = append(reported, err) }})
		if err != nil {
			t.Fatal(err)
		}
		good := p.get(haltKey)
		foreign, err := r.Halts().Sign(seedKey(9), 2, &halt.Orders{})
		if err != nil {
			t.Fatal(err)
		}
		p.put(haltKey, foreign)
		flips = 0
		if _, err := r.Halts().Read(ctx); !errors.Is(err, trust.ErrUntrusted) || len(reported) != 0 {
			t.Errorf("an object by an unknown key: %v, reported %q", err, reported)
		}
		p.put(haltKey, good)
		flips = 1
		var arrival *ArrivalError
		if _, err := r.Halts().Read(ctx); err != nil || len(reported) != 1 || !errors.As(reported[0], &arrival) {
			t.Errorf("a damaged copy: %v, reported %q", err, reported)
		}
	})
}
