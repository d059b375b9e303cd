package index

import (
	"fmt"
	"math"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

const (
	// RootKind and RootVersion identify an index root in its header.
	RootKind    = "root"
	RootVersion = 1
	// MaxRoot bounds the index root in bytes.
	MaxRoot = 64 << 20
	// MaxSegments bounds the live segments of a root; a writer merges
	// segments before it would exceed it.
	MaxSegments = 12
	// MaxCondemned bounds the condemned packs.
	MaxCondemned = 1 << 20
)

// SegmentRef holds the fields that a reader needs to read any part of a
// segment.
type SegmentRef struct {
	_            struct{}      `cbor:",toarray"`
	Digest       digest.Digest `json:"digest"` // SHA-256 of the object, its key
	Size         int64         `json:"size"`   // of the object, bytes
	Records      uint64        `json:"records"`
	Footer       int64         `json:"footer"` // its offset; it reaches to the end
	FooterDigest digest.Digest `json:"footer_digest"`
	Salt         []byte        `json:"salt,omitempty"`
}

// Condemned is a pack that gc will delete unless a later mark finds it in
// use.
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
	Lost      uint64       `json:"lost"`     // grows when fsck drops lost packs; older caches of publishers are then invalid
	Segments  []SegmentRef `json:"segments"`
	Condemned []Condemned  `json:"condemned"`
}

// Validate checks the bounds of the root's segments and condemned packs.
func (r *Root) Validate() error {
	if len(r.Segments) > MaxSegments || len(r.Condemned) > MaxCondemned {
		return fmt.Errorf("index root lists %d segments and %d condemned packs, at most %d and %d are allowed: %w", len(r.Segments), len(r.Condemned), MaxSegments, MaxCondemned, frame.ErrDamaged)
	}
	seen := map[digest.Digest]bool{}
	for _, s := range r.Segments {
		if err := s.validateLayout(); err != nil {
			return err
		}
		if seen[s.Digest] {
			return fmt.Errorf("index root: segment %s is listed twice: %w", s.Digest.Short(), frame.ErrDamaged)
		}
		seen[s.Digest] = true
	}
	for i, c := range r.Condemned {
		if c.Since < 0 || i > 0 && r.Condemned[i-1].Pack.Compare(c.Pack) >= 0 {
			return fmt.Errorf("index root: condemned pack %s: out of bounds or order: %w", c.Pack.Short(), frame.ErrDamaged)
		}
	}
	return nil
}

// validateLayout checks the ref against the layout of a segment: pages from the
// prelude to the footer, all full except the last.
func (s *SegmentRef) validateLayout() error {
	var overhead uint64
	switch len(s.Salt) {
	case 0:
	case seal.SaltSize:
		overhead = seal.Overhead
	default:
		return fmt.Errorf("index root: segment %s: salt of %d bytes: %w", s.Digest.Short(), len(s.Salt), frame.ErrDamaged)
	}
	pages := (s.Records + PageRecords - 1) / PageRecords
	if s.Records > MaxRecords || s.Footer < 0 || uint64(s.Footer) != pack.PreludeSize+s.Records*RecordSize+pages*overhead ||
		s.Footer >= s.Size || s.Size-s.Footer > MaxFooter {
		return fmt.Errorf("index root: segment %s of %d bytes: its %d records and its footer at %d do not fit: %w", s.Digest.Short(), s.Size, s.Records, s.Footer, frame.ErrDamaged)
	}
	return nil
}

// EncodeRoot returns the root's object.
func EncodeRoot(r *Root) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	b, err := frame.Encode(RootKind, RootVersion, r)
	if err != nil {
		return nil, err
	}
	return frame.AppendSum(b), nil
}

// DecodeRoot reads the root's object.
func DecodeRoot(b []byte) (*Root, error) {
	b, err := frame.CutSum(RootKind, RootVersion, b)
	if err != nil {
		return nil, err
	}
	body, err := frame.Body(RootKind, RootVersion, MaxRoot-digest.Size, b)
	if err != nil {
		return nil, err
	}
	root, err := parseRoot(body)
	if err != nil {
		return nil, fmt.Errorf("index root: %w", err)
	}
	if err := root.Validate(); err != nil {
		return nil, err
	}
	return root, nil
}

func parseRoot(body []byte) (*Root, error) {
	const (
		id         = 2 + digest.Size // a byte string of its length
		minSegment = 1 + id + 1 + 1 + 1 + id + 1
		minPack    = 1 + id + 1
	)
	r := frame.NewReader(body)
	r.Struct(4)
	root := Root{Sequence: r.Uint(math.MaxUint64), Lost: r.Uint(math.MaxUint64)}
	root.Segments = make([]SegmentRef, r.Array(MaxSegments, minSegment))
	for i := range root.Segments {
		s := &root.Segments[i]
		r.Struct(6)
		r.Fixed(s.Digest[:])
		s.Size = int64(r.Uint(math.MaxInt64))
		s.Records = r.Uint(MaxRecords)
		s.Footer = int64(r.Uint(math.MaxInt64))
		r.Fixed(s.FooterDigest[:])
		s.Salt = r.Bytes(seal.SaltSize)
	}
	root.Condemned = make([]Condemned, r.Array(MaxCondemned, minPack))
	for i := range root.Condemned {
		r.Struct(2)
		r.Fixed(root.Condemned[i].Pack[:])
		root.Condemned[i].Since = int64(r.Uint(math.MaxInt64))
	}
	return &root, r.Close()
}
