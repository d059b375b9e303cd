package wire

import (
	"fmt"

	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

// Chain is what a site knows of who may speak for the Core: the root key that
// it pinned at enrolment, and the newest trust document that it has seen. The
// keys that sign control messages, releases and halts rotate with the
// document, without touching a site.
type Chain struct {
	Repo   trust.RepoID
	Root   trust.Public
	Number uint64 // of the document; 0: none seen
	Object []byte // the document as signed, to be kept by the caller
	doc    *trust.Doc
}

// Follow takes a newer trust document. One that is not newer changes nothing;
// one that the root has not signed is refused.
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

// Allow accepts the keys that may speak for the Core; none before a document
// was seen.
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

// Down is what the bus carries from the Core to a site: the signed message,
// and the newest trust document where the site's Hello or Beat told an older
// one (or none, when it enrols).
type Down struct {
	_       struct{} `cbor:",toarray"`
	Trust   []byte   // empty: the site has it
	Message []byte   // what Sign returned
}

const downKind = "down"

// Encode returns the bytes for the bus.
func (d *Down) Encode() ([]byte, error) { return frame.Encode(downKind, Version, d) }

// OpenDown reads what the Core said to a on verb: it follows the trust document
// that comes along, checks the message by it and decodes it into v. newer says
// that c changed and is to be kept.
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
