package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

func ref(i int) SegmentRef {
	return SegmentRef{Digest: id(i), Size: pack.PreludeSize + 2*RecordSize + 100, Records: 2, Footer: pack.PreludeSize + 2*RecordSize, FooterDigest: id(-i)}
}

func root() *Root {
	sealed := ref(3)
	sealed.Salt = bytes.Repeat([]byte{7}, seal.SaltSize)
	sealed.Footer += seal.Overhead
	return &Root{Sequence: 7, Lost: 2, Segments: []SegmentRef{ref(1), ref(2), sealed},
		Condemned: []Condemned{{Pack: digest.Digest{1}, Since: 1_700_000_000}, {Pack: digest.Digest{2}}}}
}

func TestRootRoundTrip(t *testing.T) {
	for name, want := range map[string]*Root{"of three segments": root(), "of nothing": {Sequence: 1}, "at its end": {Sequence: 1<<64 - 1, Lost: 1<<64 - 1}} {
		b, err := EncodeRoot(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRoot(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal...); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
		if again, err := EncodeRoot(got); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: encodes differently the second time: %v", name, err)
		}
	}
}

func TestRootRefuses(t *testing.T) {
	for name, change := range map[string]func(*Root){
		"too many segments": func(r *Root) {
			for i := range MaxSegments {
				r.Segments = append(r.Segments, ref(i+10))
			}
		},
		"a segment twice":             func(r *Root) { r.Segments[1] = r.Segments[0] },
		"a footer before the end":     func(r *Root) { r.Segments[0].Footer-- },
		"a footer past the end":       func(r *Root) { r.Segments[0].Size = r.Segments[0].Footer },
		"a footer too long":           func(r *Root) { r.Segments[0].Size = r.Segments[0].Footer + MaxFooter + 1 },
		"a footer before the start":   func(r *Root) { r.Segments[0].Footer = -1 },
		"more records than fit":       func(r *Root) { r.Segments[0].Records++ },
		"more records than there are": func(r *Root) { r.Segments[0].Records = 1 << 62 },
		"records that nearly wrap": func(r *Root) {
			r.Segments[0].Records = MaxRecords + 1
			r.Segments[0].Footer = pack.PreludeSize + (MaxRecords+1)*RecordSize
			r.Segments[0].Size = r.Segments[0].Footer + 1
		},
		"sealed with a plain shape":       func(r *Root) { r.Segments[0].Salt = make([]byte, seal.SaltSize) },
		"a salt of another size":          func(r *Root) { r.Segments[0].Salt = make([]byte, seal.SaltSize-1) },
		"condemned packs out of order":    func(r *Root) { r.Condemned[1].Pack = digest.Digest{} },
		"a condemned pack twice":          func(r *Root) { r.Condemned[1].Pack = r.Condemned[0].Pack },
		"condemned before there was time": func(r *Root) { r.Condemned[0].Since = -1 },
	} {
		r := root()
		change(r)
		if _, err := EncodeRoot(r); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		b, err := frame.Encode(RootKind, RootVersion, r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRoot(frame.AppendSum(b)); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	many := Root{Condemned: make([]Condemned, MaxCondemned+1)}
	for i := range many.Condemned {
		binary.BigEndian.PutUint32(many.Condemned[i].Pack[:], uint32(i))
	}
	if err := many.Validate(); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("too many condemned packs: %v", err)
	}
	good, err := EncodeRoot(root())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"cut short": good[:len(good)-1], "a byte more": append(bytes.Clone(good), 0), "nothing": nil,
		"a bit flipped": flipped(good, len(good)-60), "a bit of its checksum flipped": flipped(good, len(good)-1)} {
		if _, err := DecodeRoot(b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}
