// Package digest defines nightferry's only hash, SHA-256.
//
// A file's digest is the plain SHA-256 of its bytes, so anyone can check it
// with sha256sum. Objects in the bucket are named by the same digest.
package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Size is the length of a Digest in bytes.
const Size = sha256.Size

// Digest is a SHA-256 sum. The zero Digest marks "none" and, in a chunk
// reference, a hole. No stored object has it.
type Digest [Size]byte

// Of returns the SHA-256 of b.
func Of(b []byte) Digest { return sha256.Sum256(b) }

// Parse reads the 64 lower- or upper-case hexadecimal digits of a digest.
func Parse(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*Size {
		return d, fmt.Errorf("digest %q: want %d hexadecimal digits, have %d", s, 2*Size, len(s))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", s, err)
	}
	return d, nil
}

// String returns the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hexadecimal digits, enough for a person to tell
// digests apart in a line of text.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is the zero Digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// Compare orders digests by their bytes.
func (d Digest) Compare(e Digest) int { return bytes.Compare(d[:], e[:]) }

// MarshalText makes a digest a hexadecimal string in JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = Parse(string(b))
	return err
}
