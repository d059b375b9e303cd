package wire

import (
	"fmt"

	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

// Chain determines which keys a site accepts from the Core: it holds the root key that the site pinned at enrollment
// and the newest trust document seen. The keys for control messages, releases and halts rotate with that document,
// without any work at the site.
type Chain struct {
	Repo   trust.RepoID
	Root   trust.Public
	Number uint64 // of the document; 0: none seen
	Object []byte // the signed document; the caller stores it
	doc    *trust.Doc
}

// Follow accepts a newer trust document. It ignores one that is not newer and refuses one that the root key has not
// signed.
func (c *Chain) Follow(object []byte) (newer bool, err error) {
	s, err := trust.Parse(trust.DocKind, trust.DocVersion, trust.MaxDoc, object)
	if err != nil {
		return false, fmt.Errorf("trust document: %w", err)
	}
	if s.Subject.Number <= c.Number && c.doc != nil {
		return false, nil
	}
	if s.Subject.Number < c.Number {
		return false, fmt.Errorf("%w: trust document %d, number %d was seen before", trust.ErrUntrusted, s.Subject.Number, c.Number)
	}
	want := trust.Subject{Kind: trust.DocKind, Version: trust.DocVersion, Repo: c.Repo, Number: s.Subject.Number}
	if err := s.Verify(want); err != nil {
		return false, err
	}
	if s.Signer != c.Root {
		return false, fmt.Errorf("%w: trust document %d is signed by key %s, not by the root key %s", trust.ErrUntrusted, s.Subject.Number, s.Signer, c.Root)
	}
	doc, err := trust.DecodeDoc(s.Payload)
	if err != nil {
		return false, err
	}
	c.Number, c.Object, c.doc = s.Subject.Number, object, doc
	return true, nil
}

// Allow accepts the keys that may sign the Core's messages. It accepts none before a document was seen.
func (c *Chain) Allow(signer trust.Public) error {
	if c.doc == nil {
		return fmt.Errorf("%w: no trust document was seen yet", trust.ErrUntrusted)
	}
	return c.doc.Allows(signer, trust.Control)
}

// AllowHalt accepts the keys that may sign halts.
func (c *Chain) AllowHalt(signer trust.Public) error {
	if c.doc == nil {
		return fmt.Errorf("%w: no trust document was seen yet", trust.ErrUntrusted)
	}
	return c.doc.Allows(signer, trust.Halts)
}

// Down is the Core's message to a site as the bus carries it: the signed message, with the newest trust document if the
// site's Hello or Beat reported an older one or the site is enrolling.
type Down struct {
	_       struct{} `cbor:",toarray"`
	Trust   []byte   // empty: the site has the newest one
	Message []byte   // output of Sign
}

const downKind = "down"

// Encode returns d in the form that the bus carries.
func (d *Down) Encode() ([]byte, error) { return frame.Encode(downKind, Version, d) }

// OpenDown opens the Core's message to a on verb. It follows the trust document in it, checks the signature against
// that document and decodes the message into v. newer means that c changed and must be stored.
func (c *Chain) OpenDown(b []byte, a Address, verb string, v any) (m Signed, newer bool, err error) {
	var d Down
	if err := frame.Decode(downKind, Version, MaxMessage+trust.MaxDoc, b, &d); err != nil {
		return m, false, fmt.Errorf("%s for %s: %w", verb, a, err)
	}
	if len(d.Trust) > 0 {
		if newer, err = c.Follow(d.Trust); err != nil {
			return m, false, fmt.Errorf("%s for %s: %w", verb, a, err)
		}
	}
	m, err = Open(d.Message, c.Repo, a, verb, c.Allow, v)
	return m, newer, err
}
