package frame

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Reader reads deterministic CBOR field by field, for artefacts with many
// entries. It accepts exactly the bytes that Unmarshal accepts, in a quarter
// of the time: it requires the shortest form of each head instead of encoding
// the value again. It never allocates for more elements than the remaining
// bytes can hold. After the first error, every read returns zero, so callers
// only need to check Close.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads body, which the Reader does not change.
func NewReader(body []byte) *Reader { return &Reader{b: body} }

// CBOR's major types, RFC 8949 §3.1.
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
)

func (r *Reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
		r.b = nil
	}
}

// head reads a major type and its argument in the shortest form.
func (r *Reader) head() (major byte, arg uint64) {
	if len(r.b) == 0 {
		r.fail("ends too early")
		return 0, 0
	}
	major, info := r.b[0]>>5, r.b[0]&0x1f
	if info < 24 {
		r.b = r.b[1:]
		return major, uint64(info)
	}
	if info > 27 {
		r.fail("not in canonical form")
		return 0, 0
	}
	n := 1 << (info - 24)
	if len(r.b) < 1+n {
		r.fail("ends too early")
		return 0, 0
	}
	var least uint64
	switch p := r.b[1:]; n {
	case 1:
		arg, least = uint64(p[0]), 24
	case 2:
		arg, least = uint64(binary.BigEndian.Uint16(p)), 1<<8
	case 4:
		arg, least = uint64(binary.BigEndian.Uint32(p)), 1<<16
	case 8:
		arg, least = binary.BigEndian.Uint64(p), 1<<32
	}
	if arg < least {
		r.fail("not in canonical form")
		return 0, 0
	}
	r.b = r.b[1+n:]
	return major, arg
}

func (r *Reader) expect(want byte) uint64 {
	major, arg := r.head()
	if r.err == nil && major != want {
		r.fail("has CBOR type %d where type %d belongs", major, want)
		return 0
	}
	return arg
}

// Struct reads the head of an array of exactly n elements.
func (r *Reader) Struct(n int) {
	if have := r.expect(majorArray); r.err == nil && have != uint64(n) {
		r.fail("has %d fields where %d belong", have, n)
	}
}

// Array reads the head of an array of at most max elements, each of which
// takes at least size bytes, and returns their number.
func (r *Reader) Array(max, size int) int {
	n := r.expect(majorArray)
	if n > uint64(max) || n > uint64(len(r.b)/size) {
		r.fail("has an array of %d elements", n)
		return 0
	}
	return int(n)
}

// Uint reads an unsigned number of at most max.
func (r *Reader) Uint(max uint64) uint64 {
	n := r.expect(majorUint)
	if n > max {
		r.fail("has a number of %d, at most %d is allowed", n, max)
		return 0
	}
	return n
}

// Int reads a signed number.
func (r *Reader) Int() int64 {
	major, n := r.head()
	switch {
	case r.err != nil:
		return 0
	case major > majorNint:
		r.fail("has CBOR type %d where a number belongs", major)
		return 0
	case n > math.MaxInt64:
		r.fail("has a number out of bounds")
		return 0
	case major == majorNint:
		return -1 - int64(n)
	}
	return int64(n)
}

func (r *Reader) take(major byte, max int) []byte {
	n := r.expect(major)
	if n > uint64(max) || n > uint64(len(r.b)) {
		r.fail("has a string of %d bytes", n)
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

// Fixed reads a byte string of exactly len(dst) bytes into dst.
func (r *Reader) Fixed(dst []byte) {
	if s := r.take(majorBytes, len(dst)); r.err == nil && copy(dst, s) != len(dst) {
		r.fail("has %d bytes where %d belong", len(s), len(dst))
	}
}

// Bytes reads a byte string of at most max bytes, which the caller owns; nil
// when it is empty.
func (r *Reader) Bytes(max int) []byte { return append([]byte(nil), r.take(majorBytes, max)...) }

// Text reads a text of at most max bytes of valid UTF-8.
func (r *Reader) Text(max int) string {
	s := r.take(majorText, max)
	if !utf8.Valid(s) {
		r.fail("has a text that is not UTF-8")
		return ""
	}
	return string(s)
}

// Err returns the first error so far. Errors wrap ErrDamaged.
func (r *Reader) Err() error { return r.err }

// Close returns the first error, or an error if bytes are left.
func (r *Reader) Close() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("has %d bytes too many", len(r.b))
	}
	return r.err
}
