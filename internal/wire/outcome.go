package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"nightferry/internal/frame"
	"nightferry/internal/runs"
)

// MaxOutcomes bounds the outcomes of one event.
const MaxOutcomes = 4096

// File is the outcome of one file. A file of the release is identified by its ordinal among the release's entries in
// path order, which takes a few bytes. A file outside the release (deleted, extra) is identified by its path.
type File struct {
	Outcome runs.Outcome
	Ordinal uint64 // of the release's entry, from 0; used if Path is empty
	Path    string // of a file outside the release
	From    string // of a moved file
	Held    int64  // bytes of it that were already on the site
	Fetched int64  // bytes of it received from the store
	Cause   string // why it failed, is locked or was repaired
}

// columns is the encoding of outcomes. Each field is in its own array, so that zstd finds the repetition. Flags contain
// the outcome in the low four bits, then 16: has a path, 32: has From, 64: has a cause.
type columns struct {
	_        struct{} `cbor:",toarray"`
	Flags    []byte
	Ordinals []byte // varint of the difference from the previous one
	Held     []byte // uvarint each
	Fetched  []byte // uvarint each
	Texts    []string
}

const (
	hasPath = 1 << (iota + 4)
	hasFrom
	hasCause
)

// EncodeOutcomes returns the body of an OutcomesEvent.
func EncodeOutcomes(all []File) ([]byte, error) {
	if len(all) > MaxOutcomes {
		return nil, fmt.Errorf("encode %d outcomes: %w", len(all), ErrTooLarge)
	}
	var c columns
	last := int64(0)
	for i := range all {
		o := &all[i]
		flags := o.Outcome.Byte()
		if flags == 0 || o.Held < 0 || o.Fetched < 0 {
			return nil, fmt.Errorf("encode outcome %q of %q: out of bounds", o.Outcome, o.Path)
		}
		for _, t := range [...]struct {
			flag byte
			text string
		}{{hasPath, o.Path}, {hasFrom, o.From}, {hasCause, o.Cause}} {
			if t.text != "" {
				flags |= t.flag
				c.Texts = append(c.Texts, t.text)
			}
		}
		if o.Path == "" {
			c.Ordinals = binary.AppendVarint(c.Ordinals, int64(o.Ordinal)-last)
			last = int64(o.Ordinal)
		}
		c.Flags = append(c.Flags, flags)
		c.Held = binary.AppendUvarint(c.Held, uint64(o.Held))
		c.Fetched = binary.AppendUvarint(c.Fetched, uint64(o.Fetched))
	}
	return frame.Marshal(&c)
}

var errColumns = errors.New("the columns of outcomes do not fit together")

// DecodeOutcomes decodes the body of an OutcomesEvent. It does not clean the site's texts, see Text.
func DecodeOutcomes(body []byte) ([]File, error) {
	var c columns
	if err := Decode(body, &c); err != nil {
		return nil, err
	}
	if len(c.Flags) > MaxOutcomes {
		return nil, fmt.Errorf("%d outcomes: %w", len(c.Flags), ErrTooLarge)
	}
	all := make([]File, len(c.Flags))
	last, ok := int64(0), true
	text := func() (s string) {
		if len(c.Texts) == 0 {
			ok = false
			return ""
		}
		s, c.Texts = c.Texts[0], c.Texts[1:]
		ok = ok && s != "" // otherwise it would be encoded without the flag
		return s
	}
	number := func(b *[]byte) int64 {
		v, n := binary.Uvarint(*b)
		if n <= 0 || v > 1<<62 || !isShortest(*b, n) {
			ok = false
			return 0
		}
		*b = (*b)[n:]
		return int64(v)
	}
	for i, flags := range c.Flags {
		o := &all[i]
		if o.Outcome, ok = runs.OutcomeOf(flags & 15); !ok || flags >= 128 {
			return nil, fmt.Errorf("%w: %w", errColumns, frame.ErrDamaged)
		}
		if flags&hasPath != 0 {
			o.Path = text()
		} else {
			d, n := binary.Varint(c.Ordinals)
			if n <= 0 || d > 1<<62 || last+d < 0 || last+d > 1<<62 || !isShortest(c.Ordinals, n) {
				return nil, fmt.Errorf("%w: %w", errColumns, frame.ErrDamaged)
			}
			c.Ordinals = c.Ordinals[n:]
			last += d
			o.Ordinal = uint64(last)
		}
		if flags&hasFrom != 0 {
			o.From = text()
		}
		if flags&hasCause != 0 {
			o.Cause = text()
		}
		o.Held, o.Fetched = number(&c.Held), number(&c.Fetched)
		ok = ok && o.Held <= MaxCount && o.Fetched <= MaxCount && len(o.Path) <= maxPath && len(o.From) <= maxPath
		if !ok {
			return nil, fmt.Errorf("%w: %w", errColumns, frame.ErrDamaged)
		}
	}
	if len(c.Texts)+len(c.Ordinals)+len(c.Held)+len(c.Fetched) > 0 {
		return nil, fmt.Errorf("%w: %w", errColumns, frame.ErrDamaged)
	}
	return all, nil
}

// isShortest reports whether the varint in the first n bytes of b has its
// shortest form: decoded data must have one encoding.
func isShortest(b []byte, n int) bool { return n == 1 || b[n-1] != 0 }
