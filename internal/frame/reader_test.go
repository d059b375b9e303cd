package frame

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// read reads a sample field by field, as the decoders of large artefacts do.
func read(body []byte) (s sample, err error) {
	r := NewReader(body)
	r.Struct(6)
	r.Fixed(s.ID[:])
	s.Name = r.Text(len(body))
	s.Size = r.Int()
	s.Salt = r.Bytes(len(body))
	s.Inner = make([]inner, r.Array(MaxArray, 1+5+1))
	for i := range s.Inner {
		r.Struct(2)
		r.Fixed(s.Inner[i].ID[:])
		s.Inner[i].N = uint32(r.Uint(math.MaxUint32))
	}
	switch b := r.Uint(math.MaxUint64); b { // a Reader has no Bool: no artefact that it reads holds one
	case 0, 1:
		s.On = b == 1
	default:
		r.fail("no bool")
	}
	return s, r.Close()
}

// bools replaces the sample's last byte, a CBOR bool, by a number for read.
func bools(body []byte, from, to [2]byte) []byte {
	b := bytes.Clone(body)
	for i := range from {
		if n := len(b); n > 0 && body[n-1] == from[i] {
			b[n-1] = to[i]
		}
	}
	return b
}

var asBool, asNumber = [2]byte{0xf4, 0xf5}, [2]byte{0, 1}

func TestReaderReadsWhatMarshalWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := samples().Draw(t, "sample")
		b, err := Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(bools(b, asBool, asNumber))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(sample{}, inner{}), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestReaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		read func(*Reader)
	}{
		"a number in a longer form":      {"1817", func(r *Reader) { r.Uint(99) }},
		"two bytes for one":              {"1900ff", func(r *Reader) { r.Uint(999) }},
		"four bytes for two":             {"1a0000ffff", func(r *Reader) { r.Uint(99999) }},
		"eight bytes for four":           {"1b00000000ffffffff", func(r *Reader) { r.Uint(math.MaxUint64) }},
		"a number above the bound":       {"0a", func(r *Reader) { r.Uint(9) }},
		"a negative number":              {"20", func(r *Reader) { r.Uint(9) }},
		"a number above int64":           {"1b8000000000000000", func(r *Reader) { r.Int() }},
		"a number below int64":           {"3b8000000000000000", func(r *Reader) { r.Int() }},
		"text for an int":                {"60", func(r *Reader) { r.Int() }},
		"reserved length 28":             {"1c", func(r *Reader) { r.Uint(99) }},
		"reserved length 28, with bytes": {"1c" + "00000000000000000000000000000000", func(r *Reader) { r.Uint(99) }},
		"indefinite length":              {"9fff", func(r *Reader) { r.Array(9, 1) }},
		"a length cut off":               {"19ff", func(r *Reader) { r.Uint(99) }},
		"nothing":                        {"", func(r *Reader) { r.Uint(99) }},
		"a short fixed":                  {"4101", func(r *Reader) { r.Fixed(make([]byte, 2)) }},
		"a long fixed":                   {"43010203", func(r *Reader) { r.Fixed(make([]byte, 2)) }},
		"text for bytes":                 {"6161", func(r *Reader) { r.Bytes(9) }},
		"bytes for text":                 {"4161", func(r *Reader) { r.Text(9) }},
		"bytes above the bound":          {"420102", func(r *Reader) { r.Bytes(1) }},
		"bytes past the end":             {"4201", func(r *Reader) { r.Bytes(9) }},
		"bytes of 2^63":                  {"5b8000000000000000", func(r *Reader) { r.Bytes(math.MaxInt) }},
		"text that is not UTF-8":         {"61ff", func(r *Reader) { r.Text(9) }},
		"an array above the bound":       {"8200" + "00", func(r *Reader) { r.Array(1, 1); r.Uint(9); r.Uint(9) }},
		"an array that cannot fit":       {"8200" + "00", func(r *Reader) { r.Array(9, 2) }},
		"a map":                          {"a0", func(r *Reader) { r.Struct(0) }},
		"a tag":                          {"c100", func(r *Reader) { r.Uint(9) }},
		"a field too many":               {"820000", func(r *Reader) { r.Struct(1); r.Uint(9); r.Uint(9) }},
		"a field too few":                {"8100", func(r *Reader) { r.Struct(2); r.Uint(9) }},
		"bytes after the end":            {"0000", func(r *Reader) { r.Uint(9) }},
		"null":                           {"f6", func(r *Reader) { r.Array(9, 1) }},
		"the first error is kept by all": {"0a" + "00", func(r *Reader) { r.Uint(9); r.Uint(9) }},
	} {
		r := NewReader(unhex(t, c.body))
		c.read(r)
		if err := r.Close(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error is %v, want ErrDamaged", name, err)
		}
	}
}

func TestReaderAllocatesNothingForClaims(t *testing.T) {
	body := unhex(t, "9a00100000"+"00") // a million elements, one byte
	if n := testing.AllocsPerRun(100, func() {
		r := Reader{b: body}
		if got := r.Array(MaxArray, 1); got != 0 {
			t.Fatalf("Array = %d", got)
		}
	}); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReader compares the Reader with the decoder that Unmarshal uses: both
// must accept the same bytes and return the same values.
func FuzzReader(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if n := len(body); n > 0 && body[n-1] < 2 {
			return // a number where the other decoder wants a bool
		}
		var want sample
		wantErr := Unmarshal(body, &want)
		got, err := read(bools(body, asBool, asNumber))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x: the reader says %v, the decoder %v", body, err, wantErr)
		}
		if err != nil {
			return
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(sample{}, inner{}), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		if again, err := Marshal(&got); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%x comes back as %x, %v", body, again, err)
		}
	})
}

// needSeeds fails a fuzz test whose committed seeds are missing: without
// seeds it would pass without testing anything.
func needSeeds(f *testing.F) {
	seeds, err := filepath.Glob("testdata/fuzz/" + f.Name() + "/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
	if _, err := os.Stat(seeds[0]); err != nil {
		f.Fatal(err)
	}
}
