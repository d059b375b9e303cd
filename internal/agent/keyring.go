package agent

import (
	"context"
	"fmt"
	"sync"

	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// keyring holds the newest trust document that the site has accepted, from the Core or from the store. It is safe for
// concurrent use.
type keyring struct {
	s     *session
	newer func() // called after a newer document was accepted

	keeping sync.Mutex // held while a document is made durable: both sources may bring one at once
	mu      sync.Mutex
	chain   wire.Chain
}

// current returns a copy of the chain, which the caller may let follow newer documents.
func (k *keyring) current() wire.Chain {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.chain
}

// load takes up the documents of the enrollment and of an earlier process.
func (k *keyring) load(ctx context.Context) error {
	next := wire.Chain{Repo: k.s.id.Repo, Root: k.s.id.Root}
	if len(k.s.id.Trust) > 0 {
		if _, err := next.Follow(k.s.id.Trust); err != nil {
			return fmt.Errorf("the trust document of the enrollment: %w", err)
		}
	}
	kept, err := k.s.spool.Kept(ctx, spool.Chain)
	if err != nil {
		return err
	}
	if kept.Number > next.Number {
		if _, err := next.Follow(kept.Object); err != nil {
			return fmt.Errorf("the trust document that was kept: %w", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.chain = next
	return nil
}

// accept makes the newer document of a chain durable before anything that it vouches for is used. An error means
// that it is not durable.
func (k *keyring) accept(ctx context.Context, next wire.Chain) error {
	k.keeping.Lock()
	defer k.keeping.Unlock()
	if next.Number <= k.current().Number {
		return nil // the other source was faster
	}
	if err := k.s.spool.Keep(ctx, spool.Chain, spool.Numbered{Number: next.Number, Object: next.Object}); err != nil {
		return spoolError{err}
	}
	k.mu.Lock()
	k.chain = next
	k.mu.Unlock()
	k.newer()
	return nil
}

// follow accepts the next document, as the store has it under number n.
func (k *keyring) follow(ctx context.Context, n uint64, object []byte) error {
	next := k.current()
	if next.Number >= n {
		return nil
	}
	if _, err := next.Follow(object); err != nil {
		return err
	}
	if next.Number != n {
		return fmt.Errorf("%w: trust document %d is in the place of document %d", trust.ErrUntrusted, next.Number, n)
	}
	return k.accept(ctx, next)
}

// allowHalt returns why a key may not sign halts, or nil.
func (k *keyring) allowHalt(signer trust.Public) error {
	c := k.current()
	return c.AllowHalt(signer)
}
