package bus

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// NewIdentity generates a user key for a site or the Core. The seed is secret, in NATS' text form ("SU…", 58 bytes);
// public ("U…") is not.
func NewIdentity() (seed []byte, public string, err error) {
	return newKey(nkeys.PrefixByteUser)
}

// IdentityOf derives a user key from 32 random bytes, which an enrollment token contains.
func IdentityOf(raw [32]byte) (seed []byte, public string, err error) {
	if seed, err = nkeys.EncodeSeed(nkeys.PrefixByteUser, raw[:]); err != nil {
		return nil, "", fmt.Errorf("make an identity: %w", err)
	}
	public, err = PublicOf(seed)
	return seed, public, err
}

// PublicOf returns the public half of a seed of any kind.
func PublicOf(seed []byte) (string, error) {
	kp, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", fmt.Errorf("read a key's seed: %w", err) // the library's errors do not contain the seed
	}
	defer kp.Wipe()
	public, err := kp.PublicKey()
	if err != nil {
		return "", fmt.Errorf("read a key's seed: %w", err)
	}
	return public, nil
}

// Ed25519Of returns the same user key in the standard library's form, for signing messages.
func Ed25519Of(seed []byte) (ed25519.PrivateKey, error) {
	prefix, raw, err := nkeys.DecodeSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("read a user's seed: %w", err)
	}
	if prefix != nkeys.PrefixByteUser {
		return nil, fmt.Errorf("read a user's seed: it is the seed of another kind of key")
	}
	return ed25519.NewKeyFromSeed(raw), nil
}

// Ed25519Public returns a user's public key in the standard library's form. It fails for keys of other kinds.
func Ed25519Public(public string) (ed25519.PublicKey, error) {
	raw, err := nkeys.Decode(nkeys.PrefixByteUser, []byte(public))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %q is not a user's: it starts with U and has 56 characters", clipText(public))
	}
	return raw, nil
}

// Grant is the content of a user's JWT. Its signature has not been checked; the server does that.
type Grant struct {
	Public  string // the user's public key
	Name    string // the site's name, or the token's id
	Issuer  string // public half of the signing key
	Issued  time.Time
	Expires time.Time // zero: never
	Proven  bool      // a refused client has proven that it has the user's key; the issuer proves nothing by itself
}

// ReadGrant reads a user's JWT.
func ReadGrant(token string) (Grant, error) {
	c, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return Grant{}, fmt.Errorf("read a user's JWT: %w", err)
	}
	g := Grant{Public: c.Subject, Name: c.Name, Issuer: c.Issuer, Issued: time.Unix(c.IssuedAt, 0)}
	if c.Expires != 0 {
		g.Expires = time.Unix(c.Expires, 0)
	}
	return g, nil
}

func newKey(kind nkeys.PrefixByte) (seed []byte, public string, err error) {
	kp, err := nkeys.CreatePair(kind)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	if seed, err = kp.Seed(); err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	if public, err = kp.PublicKey(); err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	return seed, public, nil
}

// Pin is the SHA-256 of a CA certificate's DER bytes.
type Pin [sha256.Size]byte

func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// clipText shortens untrusted text for an error.
func clipText(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// PublicText is the inverse of Ed25519Public.
func PublicText(key ed25519.PublicKey) (string, error) {
	b, err := nkeys.Encode(nkeys.PrefixByteUser, key)
	if err != nil {
		return "", fmt.Errorf("write a user's public key: %w", err)
	}
	return string(b), nil
}
