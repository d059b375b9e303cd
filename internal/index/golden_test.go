package index

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

// golden reads an artefact of format 1 that was written when the format was
// frozen. These files never change: a program that cannot read them cannot
// read any bucket.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "format1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// needSeeds fails a fuzz test whose committed seeds are missing: without
// seeds it would pass without testing anything.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
}

func goldenRecords() []Record {
	return []Record{
		{ID: digest.Digest{1}, Pack: 1, At: pack.Location{Block: pack.PreludeSize, Stored: 1000, Offset: 0, Size: 1 << 19}},
		{ID: digest.Digest{2, 31: 9}, Pack: 0, At: pack.Location{Block: 1 << 20, Stored: pack.MaxStored, Offset: 1<<20 - 1, Size: 1}},
	}
}

// goldenPacks is the table of the golden segment, with fixed salts.
func goldenPacks(k *seal.Keys) []Pack {
	ps := []Pack{{Digest: digest.Digest{0xaa}, Size: 18 << 20}, {Digest: digest.Digest{0xbb}, Size: pack.MaxSize}}
	if k != nil {
		ps[0].Salt, ps[1].Salt = bytes.Repeat([]byte{3}, seal.SaltSize), bytes.Repeat([]byte{4}, seal.SaltSize)
	}
	return ps
}

func TestGolden(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		b := golden(t, "root")
		got, err := DecodeRoot(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(root(), got, equal...); d != "" {
			t.Error(d)
		}
		if again, err := EncodeRoot(root()); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encodes as %x, %v", again, err)
		}
	})
	both(t, func(t *testing.T, k *seal.Keys) {
		name := "segment-plain"
		overhead := 0
		if k != nil {
			name, overhead = "segment-sealed", seal.Overhead
		}
		b := golden(t, name)
		salt, err := pack.ParsePrelude(Kind, Version, b)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(pack.PreludeSize + 2*RecordSize + overhead)
		f, obj := open(t, k, b, SegmentRef{Footer: at, Salt: salt})
		if d := cmp.Diff(goldenPacks(k), f.Packs, equal...); d != "" {
			t.Error(d)
		}
		r := page(t, f, obj, b, 0)
		if r.Len() != 2 || len(f.Pages) != 1 {
			t.Fatalf("%d records in %d pages", r.Len(), len(f.Pages))
		}
		if d := cmp.Diff(goldenRecords(), []Record{r.At(0), r.At(1)}); d != "" {
			t.Error(d)
		}
		// Written again with that prelude, the bytes are the same.
		body, err := frame.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		again := obj.Seal(bytes.Clone(b[:pack.PreludeSize]), r, pack.PreludeSize)
		if again = obj.Seal(again, body, uint64(at)); !bytes.Equal(again, b) {
			t.Errorf("encodes as %x", again)
		}
	})
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzDecodeRoot(f *testing.F) {
	needSeeds(f)
	sum := digest.Size
	f.Add(golden(f, "root")[:len(golden(f, "root"))-sum])
	// The fuzzer adds the checksum: CutSum would refuse nearly all other
	// input.
	f.Fuzz(func(t *testing.T, b []byte) {
		var got *Root
		var err error
		whole := frame.AppendSum(bytes.Clone(b))
		if took := allocated(func() { got, err = DecodeRoot(whole) }); took > uint64(64*len(b))+1<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		var want Root
		generic := frame.Decode(RootKind, RootVersion, MaxRoot-sum, b, &want)
		if generic == nil {
			generic = want.Validate()
		}
		if (err == nil) != (generic == nil) {
			t.Fatalf("the reader says %v, the decoder %v", err, generic)
		}
		if err != nil {
			return
		}
		if again, err := EncodeRoot(got); err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

func FuzzParseFooter(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got *Footer
		var err error
		if took := allocated(func() { got, err = ParseFooter(nil, b, 0) }); took > uint64(64*len(b))+1<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		var want Footer
		generic := frame.Unmarshal(b, &want)
		if generic == nil {
			generic = want.Validate()
		}
		if (err == nil) != (generic == nil) {
			t.Fatalf("the reader says %v, the decoder %v", err, generic)
		}
		if err != nil {
			return
		}
		if again, err := frame.Marshal(got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

// FuzzOpenPage checks that every record of an opened page points into its
// pack and encodes to the same bytes.
func FuzzOpenPage(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := len(b) / RecordSize
		if n == 0 || n > PageRecords {
			return
		}
		b = b[:n*RecordSize]
		footer := Footer{Records: uint64(n), Packs: goldenPacks(nil), Pages: []Page{{First: digest.Digest(b[:digest.Size]), Digest: digest.Of(b)}}}
		r, err := footer.OpenPage(nil, 0, b)
		if err != nil {
			return
		}
		var again []byte
		for i := range r.Len() {
			rec := r.At(i)
			if int64(rec.At.Block)+int64(rec.At.Stored) > int64(footer.Packs[rec.Pack].Size) || int64(rec.At.Offset)+int64(rec.At.Size) > pack.MaxBlock {
				t.Fatalf("%+v was taken", rec)
			}
			again = rec.appendTo(again)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x", b, again)
		}
	})
}
