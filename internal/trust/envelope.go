// Package trust is the format of everything signed: the envelope, the trust
// document, which lists the keys and their roles, and the head. It reads no
// files and no clock. See docs/format/trust.md, head.md, release.md.
//
// A signature is Ed25519 (RFC 8032) over type, repository id, scope, number
// and payload, so that no signed object can stand in for another: a release
// of one channel for a release of another, or release 4 for release 5.
package trust

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// RepoID names a repository: 16 random bytes, made by init.
type RepoID [16]byte

func (r RepoID) String() string { return hex.EncodeToString(r[:]) }

// MarshalText makes an id a hexadecimal string in JSON.
func (r RepoID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Public is an Ed25519 public key.
type Public [ed25519.PublicKeySize]byte

func (p Public) String() string { return hex.EncodeToString(p[:]) }

// MarshalText makes a key a hexadecimal string in JSON.
func (p Public) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the 64 hexadecimal digits of a public key.
func (p *Public) UnmarshalText(b []byte) error {
	if len(b) != 2*len(p) {
		return fmt.Errorf("public key %q: want %d hexadecimal digits", b, 2*len(p))
	}
	if _, err := hex.Decode(p[:], b); err != nil {
		return fmt.Errorf("public key %q: %w", b, err)
	}
	return nil
}

// ErrUntrusted is wrapped by every error about a signature that is invalid or
// whose signer is not allowed to sign.
var ErrUntrusted = errors.New("not trusted")

// MaxScope bounds a scope in bytes.
const MaxScope = 128

// Subject identifies the object that a signature covers.
type Subject struct {
	Kind    string // four letters: "rels", "head", "trus", "halt"
	Version uint16 // of the kind's format
	Repo    RepoID
	Scope   string // the channel's name in object keys; "" for trust and halt
	Number  uint64 // release number, trust number or halt epoch
}

// Signed is a parsed signed object: its subject, signer and payload. The kind
// defines the payload's meaning.
type Signed struct {
	Subject Subject       `json:"subject"`
	Signer  Public        `json:"signer"`
	Payload []byte        `json:"-"`
	Digest  digest.Digest `json:"digest"` // SHA-256 of the whole object
	sig     []byte
}

type envelope struct {
	_       struct{} `cbor:",toarray"`
	Repo    RepoID
	Scope   string
	Number  uint64
	Signer  Public
	Payload []byte
	Sig     []byte
}

func message(s Subject, signer Public, payload []byte) ([]byte, error) {
	body, err := frame.Marshal(&envelope{Repo: s.Repo, Scope: s.Scope, Number: s.Number, Signer: signer, Payload: payload, Sig: []byte{}})
	if err != nil {
		return nil, err
	}
	m := append([]byte("nightferry signature\x00"), frame.Header(s.Kind, s.Version)...)
	return append(m, body...), nil
}

// Sign returns the signed object. It refuses a subject that Parse would.
func Sign(key ed25519.PrivateKey, s Subject, payload []byte) ([]byte, error) {
	if len(s.Kind) != 4 || s.Version == 0 || len(s.Scope) > MaxScope {
		return nil, fmt.Errorf("sign %q version %d: kind, version or scope out of bounds", s.Kind, s.Version)
	}
	var signer Public
	copy(signer[:], key.Public().(ed25519.PublicKey))
	m, err := message(s, signer, payload)
	if err != nil {
		return nil, fmt.Errorf("sign %s %d: %w", s.Kind, s.Number, err)
	}
	return frame.Encode(s.Kind, s.Version, &envelope{Repo: s.Repo, Scope: s.Scope, Number: s.Number,
		Signer: signer, Payload: payload, Sig: ed25519.Sign(key, m)})
}

// Parse reads a signed object of at most max bytes without trusting any of
// it: the caller must call Verify before using the payload. version is the
// newest version that the caller can read.
func Parse(kind string, version uint16, max int, b []byte) (*Signed, error) {
	var e envelope
	if err := frame.Decode(kind, version, max, b, &e); err != nil {
		return nil, err
	}
	if len(e.Scope) > MaxScope || len(e.Sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%s: scope or signature out of bounds: %w", kind, frame.ErrDamaged)
	}
	return &Signed{Subject: Subject{Kind: kind, Version: frame.Version(b), Repo: e.Repo, Scope: e.Scope, Number: e.Number},
		Signer: e.Signer, Payload: e.Payload, Digest: digest.Of(b), sig: e.Sig}, nil
}

// Verify returns nil if the signature is valid for its signer and covers
// want, in want's version or an older one. It does not check that the signer
// may sign: see Doc.Allows.
func (s *Signed) Verify(want Subject) error {
	if s.Subject.Version < want.Version {
		want.Version = s.Subject.Version
	}
	if s.Subject != want {
		return fmt.Errorf("%w: it is %s %d of scope %q in repository %s, wanted %s %d of scope %q in repository %s: another object was put in its place",
			ErrUntrusted, s.Subject.Kind, s.Subject.Number, s.Subject.Scope, s.Subject.Repo, want.Kind, want.Number, want.Scope, want.Repo)
	}
	m, err := message(s.Subject, s.Signer, s.Payload)
	if err != nil {
		return err
	}
	if !ed25519.Verify(s.Signer[:], m, s.sig) {
		return fmt.Errorf("%w: the signature of %s %d does not match its content: it was altered", ErrUntrusted, want.Kind, want.Number)
	}
	return nil
}
