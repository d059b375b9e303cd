package index

import (
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

const (
	// RootKind and RootVersion open the index root.
	RootKind    = "root"
	RootVersion = 1
	// MaxRoot bounds the index root in bytes.
	MaxRoot = 64 << 20
	// MaxSegments is how many live segments a root may list; a writer merges
	// before it publishes more.
	MaxSegments = 12
)

// SegmentRef is what a reader must know of a segment to read any part of it.
type SegmentRef struct {
	_            struct{}      `cbor:",toarray"`
	Digest       digest.Digest `json:"digest"` // SHA-256 of the object, its key
	Size         int64         `json:"size"`   // of the object, bytes
	Records      uint64        `json:"records"`
	Footer       int64         `json:"footer"` // its offset; it reaches to the end
	FooterDigest digest.Digest `json:"footer_digest"`
	Salt         []byte        `json:"salt,omitempty"`
}

// Condemned is a pack that gc will delete unless a later mark finds it alive.
type Condemned struct {
	_     struct{}      `cbor:",toarray"`
	Pack  digest.Digest `json:"pack"`
	Since int64         `json:"since"` // Unix seconds by the store's clock
}

// Root lists the live segments, newest first, and the condemned packs, sorted.
// It is replaced by compare-and-swap only.
type Root struct {
	_         struct{}     `cbor:",toarray"`
	Sequence  uint64       `json:"sequence"` // grows by one with every replacement
	Lost      uint64       `json:"lost"`     // grows when fsck forgets lost packs: a publisher's cache from before proves nothing
	Segments  []SegmentRef `json:"segments"`
	Condemned []Condemned  `json:"condemned"`
}

// Validate checks the bounds of what the root refers to.
func (r *Root) Validate() error {
	if len(r.Segments) > MaxSegments {
		return fmt.Errorf("index root lists %d segments, at most %d are allowed: %w", len(r.Segments), MaxSegments, frame.ErrDamaged)
	}
	for _, s := range r.Segments {
		if s.Footer < pack.PreludeSize || s.Footer >= s.Size || s.Size-s.Footer > MaxFooter || s.Records > MaxRecords ||
			(len(s.Salt) != 0 && len(s.Salt) != seal.SaltSize) {
			return fmt.Errorf("index root: segment %s: %w", s.Digest.Short(), frame.ErrDamaged)
		}
	}
	for i := 1; i < len(r.Condemned); i++ {
		if r.Condemned[i-1].Pack.Compare(r.Condemned[i].Pack) >= 0 {
			return fmt.Errorf("index root: condemned packs out of order: %w", frame.ErrDamaged)
		}
	}
	return nil
}

// EncodeRoot returns the root's object.
func EncodeRoot(r *Root) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return frame.Encode(RootKind, RootVersion, r)
}

// DecodeRoot reads the root's object.
func DecodeRoot(b []byte) (*Root, error) {
	var r Root
	if err := frame.Decode(RootKind, RootVersion, MaxRoot, b, &r); err != nil {
		return nil, err
	}
	return &r, r.Validate()
}
