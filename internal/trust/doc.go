package trust

import (
	"fmt"

	"nightferry/internal/frame"
)

const (
	// DocKind and DocVersion identify a trust document in its header.
	DocKind    = "trus"
	DocVersion = 1
	// HeadKind and HeadVersion identify a head in its header.
	HeadKind    = "head"
	HeadVersion = 1
	// MaxDoc and MaxHead bound the objects in bytes.
	MaxDoc  = 256 << 10
	MaxHead = 4 << 10
	// MaxKeys bounds the keys of a trust document.
	MaxKeys = 1024
)

// Role is a set of the object kinds that a key may sign.
type Role uint8

// Roles of a key.
const (
	Releases Role = 1 << iota
	Heads
	Halts
	Control  // messages from a Core to the agents of its sites
	AllRoles = Releases | Heads | Halts | Control
)

// Status of a key.
type Status uint8

const (
	// Active keys may sign.
	Active Status = iota
	// Retired keys sign nothing new; releases they signed stay valid.
	Retired
	// Revoked keys are not trusted: a release signed by one is valid only if
	// a valid head names its digest.
	Revoked
)

func (s Status) String() string { return [...]string{"active", "retired", "revoked"}[min(s, Revoked)] }

// MarshalText makes a status a word in JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Key is one key that the root certifies.
type Key struct {
	_      struct{} `cbor:",toarray"`
	Public Public   `json:"public"`
	Roles  Role     `json:"roles"` // bits: 1 releases, 2 heads, 4 halts, 8 control
	Status Status   `json:"status"`
	Since  int64    `json:"since"` // Unix seconds of the last change of status
}

// Doc is the payload of trust/<n>, signed by the offline root key. It holds
// the complete set of keys, so that only the highest number matters.
type Doc struct {
	_    struct{} `cbor:",toarray"`
	Keys []Key    `json:"keys"`
}

// Encode returns the payload.
func (d *Doc) Encode() ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return frame.Marshal(d)
}

// DecodeDoc reads the payload of a trust document.
func DecodeDoc(b []byte) (*Doc, error) {
	if len(b) > MaxDoc {
		return nil, fmt.Errorf("trust: %d bytes: %w", len(b), frame.ErrDamaged)
	}
	var d Doc
	if err := frame.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return &d, nil
}

// Validate checks the keys: no key twice, roles and status known.
func (d *Doc) Validate() error {
	if len(d.Keys) > MaxKeys {
		return fmt.Errorf("trust: %d keys, at most %d are allowed: %w", len(d.Keys), MaxKeys, frame.ErrDamaged)
	}
	seen := map[Public]bool{}
	for _, k := range d.Keys {
		if seen[k.Public] || k.Status > Revoked || k.Roles == 0 || k.Roles > AllRoles || k.Since < 0 {
			return fmt.Errorf("trust: key %s: %w", k.Public, frame.ErrDamaged)
		}
		seen[k.Public] = true
	}
	return nil
}

// Find returns the key with that public half, or nil.
func (d *Doc) Find(p Public) *Key {
	for i := range d.Keys {
		if d.Keys[i].Public == p {
			return &d.Keys[i]
		}
	}
	return nil
}

// Allows returns nil if signer may sign for role now. A retired key is valid
// only for releases that exist already.
func (d *Doc) Allows(signer Public, role Role) error {
	k := d.Find(signer)
	switch {
	case k == nil:
		return fmt.Errorf("%w: key %s is not one that the repository's root vouches for", ErrUntrusted, signer)
	case k.Roles&role == 0:
		return fmt.Errorf("%w: key %s may not sign this", ErrUntrusted, signer)
	case k.Status == Active, k.Status == Retired && role == Releases:
		return nil
	}
	return &EndedKeyError{signer, k.Status}
}

// EndedKeyError reports a signature, or the wish to sign, by a key that was retired or revoked. It is ErrUntrusted.
type EndedKeyError struct {
	Key    Public
	Status Status // Retired or Revoked
}

func (e *EndedKeyError) Error() string {
	return fmt.Sprintf("%v: key %s is %s", ErrUntrusted, e.Key, e.Status)
}

// Unwrap returns ErrUntrusted.
func (e *EndedKeyError) Unwrap() error { return ErrUntrusted }

// Remedy returns the next step for the holder of the key, and for a reader of what it has signed.
func (e *EndedKeyError) Remedy() string {
	return "sign with an active key: nightferry trust show STORE lists them; if a channel's head has this signature, check its release, then sign it again with nightferry trust resign STORE"
}

// Head is the payload of a channel's head; the envelope's Number is the
// release number.
type Head struct {
	_       struct{}      `cbor:",toarray"`
	Release ReleaseDigest `json:"release_digest"` // SHA-256 of the release object
	Expires int64         `json:"expires"`        // Unix seconds; after it, the head proves nothing new
}

// Encode returns the payload.
func (h *Head) Encode() ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	return frame.Marshal(h)
}

// DecodeHead reads the payload of a head.
func DecodeHead(b []byte) (*Head, error) {
	if len(b) > MaxHead {
		return nil, fmt.Errorf("head: %d bytes: %w", len(b), frame.ErrDamaged)
	}
	var h Head
	if err := frame.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	if err := h.Validate(); err != nil {
		return nil, err
	}
	return &h, nil
}

// Validate refuses a head without a release digest or an expiry time.
func (h *Head) Validate() error {
	if h.Release.IsZero() || h.Expires <= 0 {
		return fmt.Errorf("head: release %s, expires %d: out of bounds: %w", h.Release.Short(), h.Expires, frame.ErrDamaged)
	}
	return nil
}
