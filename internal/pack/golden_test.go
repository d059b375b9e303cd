package pack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
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

// goldenRaws returns the blocks of the golden packs: one of two chunks that
// compresses, and one that is stored.
func goldenRaws() [][]byte { return [][]byte{text(600), noise(40)} }

// reassemble writes a parsed pack again: it copies prelude and blocks, and
// encodes the footer from the parsed value.
func reassemble(t testing.TB, b []byte, f *Footer, obj *seal.Object) []byte {
	t.Helper()
	end := PreludeSize
	for _, blk := range f.Blocks {
		end += int(blk.Stored)
	}
	body, err := frame.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	out := obj.Seal(bytes.Clone(b[:end]), body, uint64(end))
	out = binary.BigEndian.AppendUint32(out, uint32(len(out)-end))
	return append(out, closing[:]...)
}

func TestGolden(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		name := "pack-plain"
		if k != nil {
			name = "pack-sealed"
		}
		b := golden(t, name)
		f, obj, err := Parse(k, b)
		if err != nil {
			t.Fatal(err)
		}
		if again := reassemble(t, b, f, obj); !bytes.Equal(again, b) {
			t.Errorf("encodes as %x", again)
		}
		_, dec := codecs(t)
		raws, codec := goldenRaws(), []uint8{Zstd, Stored}
		raws = [][]byte{raws[0][:400], raws[0][400:], raws[1]}
		i := 0
		f.Each(func(id digest.Digest, at Location) {
			raw, err := OpenBlock(obj, dec, nil, b[at.Block:at.Block+at.Stored], at.Block)
			if err != nil || i >= len(raws) || !bytes.Equal(raw[at.Offset:at.Offset+at.Size], raws[i]) || k.ChunkID(raws[i]) != id {
				t.Errorf("chunk %d: %v", i, err)
			}
			i++
		})
		if i != len(raws) || len(f.Blocks) != 2 {
			t.Errorf("%d chunks in %d blocks", i, len(f.Blocks))
		}
		if k == nil && (b[PreludeSize] != codec[0] || b[PreludeSize+f.Blocks[0].Stored] != codec[1]) {
			t.Error("the blocks have other codecs")
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

// FuzzParse checks that every pack that parses, plain or sealed, encodes to
// the same bytes, and that a footer's memory stays in proportion to its
// bytes.
func FuzzParse(f *testing.F) {
	needSeeds(f)
	f.Add(golden(f, "pack-plain"))
	f.Add(golden(f, "pack-sealed"))
	keys := keysOf(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range []*seal.Keys{nil, keys} {
			var footer *Footer
			var obj *seal.Object
			var err error
			if took := allocated(func() { footer, obj, err = Parse(k, b) }); took > uint64(64*len(b))+1<<20 {
				t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
			}
			if err == nil && !bytes.Equal(reassemble(t, b, footer, obj), b) {
				t.Fatalf("%x is written differently", b)
			}
		}
	})
}

// FuzzParseFooter compares the footer reader with the general decoder.
func FuzzParseFooter(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseFooter(body)
		var want Footer
		generic := frame.Unmarshal(body, &want)
		if err == nil && generic != nil {
			t.Fatalf("the reader takes what the decoder refuses: %v", generic)
		}
		if generic == nil && want.Validate(endOf(&want)) == nil && err != nil {
			t.Fatalf("the reader refuses what the decoder takes: %v", err)
		}
		if err != nil {
			return
		}
		if again, err := frame.Marshal(got); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%x comes back as %x, %v", body, again, err)
		}
	})
}

func endOf(f *Footer) int {
	end := PreludeSize
	for _, b := range f.Blocks {
		end += int(b.Stored)
	}
	return end
}

// FuzzOpenBlock checks that a block never opens to more than MaxBlock, and
// uses only a small multiple of that in memory.
func FuzzOpenBlock(f *testing.F) {
	needSeeds(f)
	for _, b := range bombs(f) {
		if len(b) < 1<<10 {
			f.Add(b)
		}
	}
	dec, err := NewDecoder()
	if err != nil {
		f.Fatal(err)
	}
	buf := make([]byte, 0, MaxBlock)
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw []byte
		var err error
		if took := allocated(func() { raw, err = OpenBlock(nil, dec, buf, b, 48) }); took > 16<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		if err == nil && len(raw) > MaxBlock {
			t.Fatalf("opened to %d bytes", len(raw))
		}
	})
}
