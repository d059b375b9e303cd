// Package chunk cuts files into content-defined chunks.
//
// The cut points come from FastCDC with normalized chunking (Xia et al.,
// "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
// Deduplication", USENIX ATC 2016), so that an insertion moves only the cuts near
// it. A file no larger than the minimum is one chunk and never enters the
// chunker. A chunk of nothing but zeros is a hole: it has no id, is never
// stored, and a site makes it by writing nothing.
package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	// Registers the algorithm under its name.
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// Algorithm is the name of the chunker in the format object. It is the
// library's first, frozen parametrization. Unlike in the library's "fastcdc",
// the masks follow the average, so that chunks really average about 128 KiB.
const Algorithm = "fastcdc-v1.0.0"

// MaxSize bounds a chunk in every repository of format 1, in bytes.
const MaxSize = 512 << 10

// Params are a repository's chunk sizes in bytes. They are fixed by init: two
// parametrizations of one content share no chunks.
type Params struct {
	_         struct{} `cbor:",toarray"`
	Algorithm string   `json:"algorithm"`
	Min       uint32   `json:"min"`
	Avg       uint32   `json:"avg"`
	Max       uint32   `json:"max"`
}

// Default returns the parameters of a new repository: 32, 128 and 512 KiB.
func Default() Params {
	return Params{Algorithm: Algorithm, Min: 32 << 10, Avg: 128 << 10, Max: MaxSize}
}

// Validate refuses parameters that this program does not support.
func (p Params) Validate() error {
	if p.Algorithm != Algorithm {
		return fmt.Errorf("chunker %q is not known, this nightferry has %q", p.Algorithm, Algorithm)
	}
	if p.Min < 64 || p.Min >= p.Avg || p.Avg >= p.Max || p.Max > MaxSize || p.Avg&(p.Avg-1) != 0 {
		return fmt.Errorf("chunk sizes min %d, avg %d, max %d: want 64 ≤ min < avg < max ≤ %d and avg a power of two", p.Min, p.Avg, p.Max, MaxSize)
	}
	return nil
}

// Ref names a run of a file's bytes: a stored chunk by its id, or a hole.
type Ref struct {
	_    struct{}      `cbor:",toarray"`
	ID   digest.Digest `json:"id"`   // zero for a hole
	Size int64         `json:"size"` // bytes; 1 to MaxSize, a hole 1 to 1<<44
}

// Hole reports whether the run is all zeros and not stored.
func (r Ref) Hole() bool { return r.ID.IsZero() }

// MaxHole bounds one hole, in bytes.
const MaxHole = 1 << 44

// Validate checks the bounds that Ref states.
func (r Ref) Validate() error {
	if r.Size < 1 || (r.Size > MaxSize && !r.Hole()) || r.Size > MaxHole {
		return fmt.Errorf("chunk %s: %d bytes are out of bounds", r.ID.Short(), r.Size)
	}
	return nil
}

// RefSize is the least number of bytes that a Ref takes in CBOR: the head of
// an array, an id, a size.
const RefSize = 1 + 2 + digest.Size + 1

// ReadRefs reads an array of at most max references. It checks each of them,
// and that no hole follows a hole: Append joins holes, so that a file has
// only one form.
func ReadRefs(r *frame.Reader, max int) ([]Ref, error) {
	n := r.Array(max, RefSize)
	if n == 0 {
		return nil, r.Err()
	}
	refs := make([]Ref, n)
	for i := range refs {
		r.Struct(2)
		r.Fixed(refs[i].ID[:])
		refs[i].Size = int64(r.Uint(MaxHole))
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return refs, CheckRefs(refs)
}

// CheckRefs validates references that follow one another in a file. Errors
// wrap frame.ErrDamaged.
func CheckRefs(refs []Ref) error {
	for i := range refs {
		if err := refs[i].Validate(); err != nil {
			return fmt.Errorf("%w: %w", frame.ErrDamaged, err)
		}
		if i > 0 && refs[i].Hole() && refs[i-1].Hole() {
			return fmt.Errorf("a hole follows a hole: %w", frame.ErrDamaged)
		}
	}
	return nil
}

// Append adds r to refs; a hole joins the hole before it.
func Append(refs []Ref, r Ref) []Ref {
	if n := len(refs); n > 0 && r.Hole() && refs[n-1].Hole() && refs[n-1].Size+r.Size <= MaxHole {
		refs[n-1].Size += r.Size
		return refs
	}
	return append(refs, r)
}

var zeros [64 << 10]byte

// Zero reports whether b holds nothing but zeros.
func Zero(b []byte) bool {
	// Most chunks differ in their first byte: test it before comparing in
	// bulk.
	if len(b) > 0 && (b[0] != 0 || b[len(b)-1] != 0) {
		return false
	}
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// Splitter cuts one stream after another. It owns one buffer of twice the
// maximum, so keep it and Reset it; it is not safe for concurrent use.
type Splitter struct {
	c *chunkers.Chunker
}

// NewSplitter returns a Splitter; call Reset before the first Next.
func NewSplitter(p Params) (*Splitter, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	c, err := chunkers.NewChunkerBuffer(p.Algorithm, bytes.NewReader(nil),
		&chunkers.ChunkerOpts{MinSize: int(p.Min), NormalSize: int(p.Avg), MaxSize: int(p.Max)},
		make([]byte, 2*p.Max))
	if err != nil {
		return nil, fmt.Errorf("chunker: %w", err)
	}
	return &Splitter{c: c}, nil
}

// Reset starts a new stream.
func (s *Splitter) Reset(r io.Reader) { s.c.Reset(r) }

// Next returns the next chunk, valid until the next call, or io.EOF at the
// end of the stream.
func (s *Splitter) Next() ([]byte, error) {
	b, err := s.c.Next()
	// The library returns the last chunk together with io.EOF.
	if errors.Is(err, io.EOF) && len(b) > 0 {
		err = nil
	}
	return b, err
}
