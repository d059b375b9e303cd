package trust

import "nightferry/internal/digest"

// ReleaseNumber is the number of a release within its channel. Numbers start at
// 1 and only grow; 0 means none. JSON calls it release.
type ReleaseNumber uint64

// ReleaseDigest is the SHA-256 of a release object. The zero ReleaseDigest means
// none. JSON calls it release_digest.
type ReleaseDigest digest.Digest

// String returns the digest as 64 lower-case hexadecimal digits.
func (d ReleaseDigest) String() string { return digest.Digest(d).String() }

// Short returns the first 12 hexadecimal digits.
func (d ReleaseDigest) Short() string { return digest.Digest(d).Short() }

// IsZero reports whether d is the zero ReleaseDigest.
func (d ReleaseDigest) IsZero() bool { return d == ReleaseDigest{} }

// MarshalText makes a digest a hexadecimal string in JSON.
func (d ReleaseDigest) MarshalText() ([]byte, error) { return digest.Digest(d).MarshalText() }

// UnmarshalText is the reverse of MarshalText.
func (d *ReleaseDigest) UnmarshalText(b []byte) error { return (*digest.Digest)(d).UnmarshalText(b) }
