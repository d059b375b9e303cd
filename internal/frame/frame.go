// Package frame defines the outer layout of every stored artefact: a magic
// that names the kind, a version, then deterministic CBOR.
//
//	offset  bytes  field
//	0       2      "nf"
//	2       4      kind, four ASCII letters ("pack", "head", …)
//	6       2      version of that kind, big endian
//	8       …      body
//
// The encoding is RFC 8949 §4.2.1 (core deterministic). Decoding is strict:
// bytes that parse but would be written differently are refused, so an
// artefact has exactly one form and its digest names exactly one value.
package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// HeaderSize is the length in bytes of magic, kind and version.
const HeaderSize = 8

// MaxArray bounds the elements of any array in a frame, and MaxSmallArray those
// that UnmarshalSmall reads.
const (
	MaxArray      = 1 << 20
	MaxSmallArray = 16 << 10
)

// ErrDamaged is wrapped by every error about bytes that no writer produces: a
// wrong magic, a truncated or non-canonical body.
var ErrDamaged = errors.New("damaged")

// NewerError reports an artefact that a newer nightferry wrote.
type NewerError struct {
	Kind      string // the four letters
	Version   uint16 // found
	Supported uint16 // the newest that this program reads
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has format version %d, this nightferry reads up to %d: upgrade nightferry here", e.Kind, e.Version, e.Supported)
}

var encMode = sync.OnceValue(func() cbor.EncMode {
	o := cbor.CoreDetEncOptions()
	// Null and the empty array would be two encodings of one value.
	o.NilContainers = cbor.NilContainerAsEmpty
	m, err := o.EncMode()
	if err != nil {
		panic(err) // the options are constant: cannot fail
	}
	return m
})

var (
	decMode      = sync.OnceValue(func() cbor.DecMode { return newDecMode(MaxArray) })
	decModeSmall = sync.OnceValue(func() cbor.DecMode { return newDecMode(MaxSmallArray) })
)

func newDecMode(maxArray int) cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   8,
		MaxArrayElements:  maxArray,
		MaxMapPairs:       1024,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant: cannot fail
	}
	return m
}

// Header returns the eight bytes that open an artefact of the given kind,
// which must be four bytes long.
func Header(kind string, version uint16) []byte {
	b := append(make([]byte, 0, HeaderSize), "nf"...)
	b = append(b, kind...)
	return binary.BigEndian.AppendUint16(b, version)
}

// CheckHeader returns nil when data opens with the magic of kind in a version
// from 1 to supported. Errors wrap ErrDamaged or are a *NewerError.
func CheckHeader(kind string, supported uint16, data []byte) error {
	if len(data) < HeaderSize {
		return fmt.Errorf("%s: %d bytes, too short for a header: %w", kind, len(data), ErrDamaged)
	}
	if string(data[:2]) != "nf" || string(data[2:6]) != kind {
		return fmt.Errorf("%s: starts with %q: %w", kind, data[:6], ErrDamaged)
	}
	v := binary.BigEndian.Uint16(data[6:8])
	if v > supported {
		return &NewerError{Kind: kind, Version: v, Supported: supported}
	}
	if v == 0 {
		return fmt.Errorf("%s: version 0: %w", kind, ErrDamaged)
	}
	return nil
}

// Kind returns the four letters of an artefact's kind, or "" if data does not
// start with nightferry's magic.
func Kind(data []byte) string {
	if len(data) < HeaderSize || string(data[:2]) != "nf" {
		return ""
	}
	return string(data[2:6])
}

// Encode frames v: header, then v in deterministic CBOR. It fails only for
// values that CBOR cannot hold, a mistake in the caller.
func Encode(kind string, version uint16, v any) ([]byte, error) {
	body, err := Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return append(Header(kind, version), body...), nil
}

// Decode reads into v what Encode wrote. Longer data than max bytes is
// refused before it is parsed.
func Decode(kind string, supported uint16, max int, data []byte, v any) error {
	body, err := Body(kind, supported, max, data)
	if err != nil {
		return err
	}
	if err := Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// Body checks header and length as Decode does and returns the bytes after
// the header, for kinds that are read with a Reader.
func Body(kind string, supported uint16, max int, data []byte) ([]byte, error) {
	if err := CheckHeader(kind, supported, data); err != nil {
		return nil, err
	}
	if len(data) > max {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed: %w", kind, len(data), max, ErrDamaged)
	}
	return data[HeaderSize:], nil
}

// Version returns the version in a header that CheckHeader has accepted.
func Version(data []byte) uint16 { return binary.BigEndian.Uint16(data[6:HeaderSize]) }

// Marshal returns v in deterministic CBOR, without a header. A struct tagged
// `cbor:",toarray"` becomes an array of its exported fields. json tags have
// no effect, except that "-" omits a field.
func Marshal(v any) ([]byte, error) { return encMode().Marshal(v) }

// Unmarshal reads deterministic CBOR and refuses anything that Marshal would
// have written differently. Errors wrap ErrDamaged. Use it for small input
// only: it allocates n Go values for an array of n elements before it reads
// the first, up to a hundred times the bytes read. Read large input with a
// Reader.
func Unmarshal(data []byte, v any) error { return unmarshal(decMode(), data, v) }

// UnmarshalSmall is Unmarshal for messages: it refuses an array of more than
// MaxSmallArray elements, before it takes memory for them.
func UnmarshalSmall(data []byte, v any) error { return unmarshal(decModeSmall(), data, v) }

func unmarshal(mode cbor.DecMode, data []byte, v any) error {
	if err := mode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	again, err := encMode().Marshal(v)
	if err != nil || !bytes.Equal(again, data) {
		return fmt.Errorf("not in canonical form: %w", ErrDamaged)
	}
	return nil
}
