package repo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"nightferry/internal/bucket"
	"nightferry/internal/trust"
)

// TrustChain follows the trust documents of a repository, which name the keys that may sign. It holds the newest one
// that it has read. It is safe for concurrent use.
type TrustChain struct {
	objects *objects
	repo    trust.RepoID
	seen    *seen

	mu     sync.Mutex
	doc    *trust.Doc
	number uint64 // of doc; 0: none was read yet
}

// Current returns the current trust document and its number. The document must not be changed.
func (c *TrustChain) Current() (*trust.Doc, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doc, c.number
}

// Root returns the root key that signed the trust documents.
func (c *TrustChain) Root() trust.Public { return c.seen.current().Root }

// allows returns nil if signer may sign for role now.
func (c *TrustChain) allows(signer trust.Public, role trust.Role) error {
	doc, _ := c.Current()
	return doc.Allows(signer, role)
}

// recall accepts the trust document of the memory, if there is one.
func (c *TrustChain) recall() error {
	m := c.seen.current()
	if m.Trust == 0 {
		return nil
	}
	if err := c.accept(m.Trust, m.TrustDoc); err != nil {
		return &MemoryError{Err: fmt.Errorf("trust document: %w", err)}
	}
	return nil
}

// follow reads the documents after the current one.
func (c *TrustChain) follow(ctx context.Context) error {
	for {
		_, n := c.Current()
		n++
		err := c.objects.readGood(ctx, TrustKey(n), trust.MaxDoc, func(b []byte, _ bucket.Info) error {
			if err := c.accept(n, b); err != nil {
				return fmt.Errorf("%s: %w", TrustKey(n), err)
			}
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) && n > 1 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// accept proves a document and makes it the current one.
func (c *TrustChain) accept(n uint64, b []byte) error {
	s, err := trust.Parse(trust.DocKind, trust.DocVersion, trust.MaxDoc, b)
	if err != nil {
		return err
	}
	if err := s.Verify(c.subject(n)); err != nil {
		return err
	}
	pinned := c.Root()
	if pinned != (trust.Public{}) && s.Signer != pinned {
		return fmt.Errorf("%w: signed by root key %s, pinned is %s", trust.ErrUntrusted, s.Signer, pinned)
	}
	doc, err := trust.DecodeDoc(s.Payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.number {
		c.doc, c.number = doc, n
	}
	c.seen.acceptTrust(s.Signer, n, b)
	return nil
}

func (c *TrustChain) subject(n uint64) trust.Subject {
	return identity{repo: c.repo}.subject(trust.DocKind, trust.DocVersion, "", n)
}

// create signs and stores document n, which must be absent.
func (c *TrustChain) create(ctx context.Context, root ed25519.PrivateKey, n uint64, doc *trust.Doc) error {
	payload, err := doc.Encode()
	if err != nil {
		return err
	}
	b, err := trust.Sign(root, c.subject(n), payload)
	if err != nil {
		return err
	}
	return putNew(ctx, c.objects.store, TrustKey(n), b)
}

// Put publishes the next trust document. root must be the pinned key.
func (c *TrustChain) Put(ctx context.Context, root ed25519.PrivateKey, doc *trust.Doc) error {
	if pinned := c.Root(); PublicOf(root) != pinned {
		return fmt.Errorf("%w: this is not the root key of the repository (%s)", trust.ErrUntrusted, pinned)
	}
	_, n := c.Current()
	n++
	if err := c.create(ctx, root, n, doc); err != nil {
		return err
	}
	b, _, err := readObject(ctx, c.objects.store, TrustKey(n), trust.MaxDoc)
	if err != nil {
		return err
	}
	return c.accept(n, b)
}

// Check follows the chain of trust documents from the first, as a new
// site would, and returns the number of the last.
func (c *TrustChain) Check(ctx context.Context) (uint64, error) {
	known := c.seen.current()
	fresh := &TrustChain{objects: c.objects, repo: c.repo, seen: &seen{}}
	fresh.seen.recall(&Memory{Root: known.Root})
	if err := fresh.follow(ctx); err != nil {
		return fresh.number, err
	}
	if n := fresh.number; n < known.Trust {
		return n, fmt.Errorf("trust documents end at %d, %d was seen: %w: an old state of the bucket was put back", n, known.Trust, ErrOlder)
	}
	return fresh.number, nil
}
