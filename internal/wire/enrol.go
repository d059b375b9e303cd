package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

const (
	tokenPrefix = "nf1."
	tokenKind   = "tokn"
	// MaxToken bounds a token in bytes, as text.
	MaxToken = 8 << 10
)

// ErrToken means that a text is not a complete enrollment token.
var ErrToken = errors.New("not a whole token")

// Token is an enrollment token: it lets one site enroll, once. It is secret until it is used.
type Token struct {
	_       struct{}      `cbor:",toarray"`
	Core    []string      // URLs to dial: tls://host:4222, wss://host
	CA      digest.Digest // SHA-256 of the DER of the certificate authority that the Core's certificate must end in
	Repo    trust.RepoID
	Root    trust.Public // the repository's root key, pinned
	Domain  string
	Site    string
	ID      string // valid as one token of a NATS subject
	Seed    []byte // of the one-time user on the bus, 32 bytes; the Core stores only a hash of its public half
	JWT     string // of that user
	Expires int64  // Unix seconds
}

// String hides the secret.
func (t *Token) String() string { return "[token " + t.ID + "]" }

// Text returns the token as text for the site.
func (t *Token) Text() (string, error) {
	if err := t.validateFields(); err != nil {
		return "", err
	}
	b, err := frame.Encode(tokenKind, Version, t)
	if err != nil {
		return "", err
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(frame.AppendSum(b)), nil
}

// ParseToken parses a token. Its errors never contain any part of it.
func ParseToken(s string) (*Token, error) {
	s = strings.TrimSpace(s)
	if len(s) > MaxToken || !strings.HasPrefix(s, tokenPrefix) {
		return nil, fmt.Errorf("enroll: %w: it begins with %q and is one line", ErrToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s[len(tokenPrefix):])
	if err != nil {
		return nil, fmt.Errorf("enroll: %w: copy it again, to its end", ErrToken)
	}
	body, err := frame.CutSum(tokenKind, Version, b)
	if newer := (*frame.NewerError)(nil); errors.As(err, &newer) {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	var t Token
	if err == nil {
		err = frame.Decode(tokenKind, Version, MaxToken, body, &t)
	}
	if err == nil {
		err = t.validateFields()
	}
	if err != nil {
		return nil, fmt.Errorf("enroll: %w: copy it again, to its end", ErrToken)
	}
	return &t, nil
}

func (t *Token) validateFields() error {
	if len(t.Core) == 0 || len(t.Seed) != 32 || t.JWT == "" || !ValidName(t.Domain) || !ValidName(t.Site) || !ValidName(t.ID) || t.Domain == EnrolDomain {
		return ErrToken
	}
	return nil
}

// Address returns the address that a token's holder uses until it has an identity.
func (t *Token) Address() Address { return Address{Domain: EnrolDomain, Site: t.ID} }

// Challenge starts an enrollment. The site signs Challenge and Enrol with its new identity key.
type Challenge struct {
	_      struct{}     `cbor:",toarray"`
	Public trust.Public // the future identity
}

// Nonce is the Core's answer: 32 random bytes, valid for one minute.
type Nonce struct {
	_     struct{} `cbor:",toarray"`
	Nonce []byte
}

// Enrol uses the token.
type Enrol struct {
	_       struct{}     `cbor:",toarray"`
	Nonce   []byte       // the Core's
	Token   trust.Public // public half of the token's seed; the Core keeps its SHA-256
	Proof   []byte       // signature by the seed, see Prove; the seed itself is never sent
	Box     []byte       // X25519 public key for Grant.Sealed
	Version string
	System  string
}

// Prove signs identity with the token's seed, to prove that the token's holder owns it.
func Prove(seed, nonce []byte, identity trust.Public) []byte {
	return ed25519.Sign(ed25519.NewKeyFromSeed(seed), proofBytes(nonce, identity))
}

// Proves checks the output of Prove.
func (e *Enrol) Proves(identity trust.Public) bool {
	return ed25519.Verify(e.Token[:], proofBytes(e.Nonce, identity), e.Proof)
}

func proofBytes(nonce []byte, identity trust.Public) []byte {
	m := append([]byte("nightferry enrollment\x00"), identity[:]...)
	return append(m, nonce...)
}

// TokenKey returns the public half of a token's seed.
func TokenKey(seed []byte) (p trust.Public) {
	copy(p[:], ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	return p
}

// Grant is the Core's answer to Enrol: the site's credential and settings.
type Grant struct {
	_      struct{} `cbor:",toarray"`
	JWT    string   // the site's user on the bus
	Core   []string // URLs to dial from now on
	Store  string   // scheme://host[:port] of the only host that serves content
	Region string
	Sealed []byte // the repository's key, encrypted for Enrol.Box; empty in a plain repository
}
