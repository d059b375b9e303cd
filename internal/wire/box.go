package wire

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
)

// Box is a site's one-time key pair. The Core encrypts Grant.Sealed for it, because enrollment messages may pass
// through a bus that someone else operates.
type Box struct{ key hpke.PrivateKey }

// ErrBox means that this key cannot open the sealed data.
var ErrBox = errors.New("not sealed for this key")

const boxInfo = "nightferry repository key"

// NewBox generates a key pair.
func NewBox() (*Box, error) {
	k, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make a key for the enrollment: %w", err)
	}
	return &Box{k}, nil
}

// Public returns the 32 bytes for Enrol.Box.
func (b *Box) Public() []byte { return b.key.PublicKey().Bytes() }

// Open decrypts the output of SealTo.
func (b *Box) Open(sealed []byte) ([]byte, error) {
	p, err := hpke.Open(b.key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(boxInfo), sealed)
	if err != nil {
		return nil, ErrBox
	}
	return p, nil
}

// SealTo encrypts a repository's key for the holder of a Box (HPKE, RFC 9180: X25519, HKDF-SHA-256, AES-256-GCM).
func SealTo(public, key []byte) ([]byte, error) {
	pk, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal a key: %w", err)
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(boxInfo), key)
}
