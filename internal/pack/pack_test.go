package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/seal"
)

var equal = cmp.AllowUnexported(Footer{}, FooterBlock{}, chunk.Ref{})

func keysOf(t testing.TB) *seal.Keys {
	t.Helper()
	k, err := seal.NewKeys(bytes.Repeat([]byte{1}, seal.KeySize), [16]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func codecs(t testing.TB) (*zstd.Encoder, *zstd.Decoder) {
	t.Helper()
	enc, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	dec, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dec.Close)
	return enc, dec
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{9}).Read(b) // never fails
	return b
}

// text is compressible, about as regular as a driver's inf file.
func text(n int) []byte { return []byte(strings.Repeat("[Version] Signature=$CHICAGO$ ", n/30+1)[:n]) }

// refs names raw cut into chunks of the given sizes.
func refs(k *seal.Keys, raw []byte, sizes ...int) (out []chunk.Ref) {
	for _, n := range sizes {
		out = append(out, chunk.Ref{ID: k.ChunkID(raw[:n]), Size: int64(n)})
		raw = raw[n:]
	}
	return out
}

func blocks(t testing.TB, k *seal.Keys) [][]byte {
	return [][]byte{text(MaxBlock), noise(1000), text(200)}
}

func write(t testing.TB, k *seal.Keys, raws [][]byte) Finished {
	t.Helper()
	enc, _ := codecs(t)
	w, err := NewWriter(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range raws {
		sizes := []int{len(raw)}
		if len(raw) == MaxBlock {
			sizes = []int{MaxBlock / 2, MaxBlock/2 - 1, 1}
		}
		w.Add(Compress(enc, nil, raw, refs(k, raw, sizes...)))
	}
	f, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func both(t *testing.T, fn func(t *testing.T, k *seal.Keys)) {
	t.Run("plain", func(t *testing.T) { fn(t, nil) })
	t.Run("sealed", func(t *testing.T) { fn(t, keysOf(t)) })
}

func TestPackRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		raws := blocks(t, k)
		p := write(t, k, raws)
		if p.Digest != digest.Of(p.Bytes) {
			t.Error("the digest is not that of the object")
		}
		footer, obj, err := Parse(k, p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&p.Footer, footer, equal); d != "" {
			t.Error(d)
		}
		_, dec := codecs(t)
		n := 0
		footer.Each(func(id digest.Digest, at Location) {
			n++
			raw, err := OpenBlock(obj, dec, []byte("before"), p.Bytes[at.Block:at.Block+at.Stored], at.Block)
			if err != nil || !bytes.HasPrefix(raw, []byte("before")) {
				t.Fatalf("block at %d: %v", at.Block, err)
			}
			if got := raw[6:][at.Offset : at.Offset+at.Size]; k.ChunkID(got) != id {
				t.Errorf("chunk %s at %+v is another", id.Short(), at)
			}
		})
		if n != 5 {
			t.Errorf("%d chunks", n)
		}
		if k != nil && bytes.Contains(p.Bytes, raws[2][:50]) {
			t.Error("a sealed pack shows its content")
		}
	})
}

func TestCompressChoosesTheCodec(t *testing.T) {
	enc, _ := codecs(t)
	for name, c := range map[string]struct {
		raw  []byte
		want uint8
	}{"text": {text(MaxBlock), Zstd}, "noise": {noise(MaxBlock), Stored}, "one byte": {[]byte{1}, Stored}} {
		b := Compress(enc, []byte("before"), c.raw, refs(nil, c.raw, len(c.raw)))
		if b.Codec != c.want || b.Raw != len(c.raw) || len(b.Payload) > len(c.raw) {
			t.Errorf("%s: codec %d, %d bytes of %d", name, b.Codec, len(b.Payload), len(c.raw))
		}
	}
}

// TestNoPackIsMadeTwice checks that pushing the same blocks again gives
// another name, because gc deletes by name.
func TestNoPackIsMadeTwice(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		raws := blocks(t, k)
		if first, second := write(t, k, raws), write(t, k, raws); first.Digest == second.Digest {
			t.Error("two packs have one name")
		}
	})
}

func TestReadFooterFromTheTail(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		p := write(t, k, blocks(t, k))
		salt, err := ParsePrelude(Kind, Version, p.Bytes[:PreludeSize])
		if err != nil || !bytes.Equal(salt, p.Salt) {
			t.Fatalf("salt %x, %v", salt, err)
		}
		size := int64(len(p.Bytes))
		_, need, err := ReadFooter(k, salt, p.Bytes[size-TrailerSize:], size)
		if err != nil || need <= TrailerSize {
			t.Fatalf("need %d, %v", need, err)
		}
		for _, n := range []int64{need, need + 1, size} {
			f, more, err := ReadFooter(k, salt, p.Bytes[size-n:], size)
			if err != nil || more != 0 {
				t.Fatalf("from %d bytes: need %d, %v", n, more, err)
			}
			if d := cmp.Diff(&p.Footer, f, equal); d != "" {
				t.Error(d)
			}
		}
		for name, c := range map[string]struct {
			tail []byte
			size int64
		}{
			"no tail": {nil, size}, "another size": {p.Bytes[size-need:], size - 1}, "too large": {p.Bytes[size-need:], MaxSize + 1},
			"larger than an int32": {p.Bytes[size-need:], 1<<32 + size}, "negative": {p.Bytes[size-need:], -1},
		} {
			if _, _, err := ReadFooter(k, salt, c.tail, c.size); err == nil {
				t.Errorf("%s: read", name)
			}
		}
	})
}

// TestAnyAlteredByteIsFound flips each byte of a small pack. The object's
// digest always detects it. Parsing detects it too, except in the blocks,
// where the chunk ids do, and in the unused salt of a plain pack.
func TestAnyAlteredByteIsFound(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		p := write(t, k, [][]byte{noise(100)})
		first := PreludeSize + int(p.Footer.Blocks[0].Stored)
		_, dec := codecs(t)
		for i := range p.Bytes {
			bad := bytes.Clone(p.Bytes)
			bad[i] ^= 0x41
			f, obj, err := Parse(k, bad)
			if err != nil {
				continue
			}
			block := i >= PreludeSize && i < first
			salt := k == nil && i >= frame.HeaderSize+8 && i < PreludeSize
			if !block && !salt {
				// A chunk's id in a plain footer may become another id that no block holds.
				found := true
				f.Each(func(id digest.Digest, at Location) {
					raw, err := OpenBlock(obj, dec, nil, bad[at.Block:at.Block+at.Stored], at.Block)
					found = found && err == nil && k.ChunkID(raw) == id
				})
				if found {
					t.Errorf("byte %d altered: parses, and every chunk matches", i)
				}
			}
		}
	})
}

func TestParseRefusesDamagedEnds(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		p := write(t, k, blocks(t, k))
		b := p.Bytes
		trailer := func(n uint32) []byte {
			c := bytes.Clone(b)
			binary.BigEndian.PutUint32(c[len(c)-TrailerSize:], n)
			return c
		}
		n := binary.BigEndian.Uint32(b[len(b)-TrailerSize:])
		for name, c := range map[string][]byte{
			"nothing": nil, "a header": b[:8], "a prelude": b[:PreludeSize], "no trailer": b[:len(b)-TrailerSize], "cut in the middle": b[:len(b)/2],
			"a byte less": b[:len(b)-1], "a byte more": append(bytes.Clone(b), 0), "two packs": append(bytes.Clone(b), b...),
			"a footer of nothing": trailer(0), "a short footer": trailer(n - 1), "a long footer": trailer(n + 1), "a footer that fills it": trailer(uint32(len(b) - PreludeSize - TrailerSize)),
			"a footer past the start": trailer(uint32(len(b))), "a footer of 4 GiB": trailer(1<<32 - 1), "reserved bytes": alter(b, frame.HeaderSize+1), "another cipher": alter(b, frame.HeaderSize),
			"above the bound": append(bytes.Clone(b), make([]byte, MaxSize)...),
		} {
			if _, _, err := Parse(k, c); err == nil {
				t.Errorf("%s: parsed", name)
			}
		}
		var newer *frame.NewerError
		c := bytes.Clone(b)
		c[7] = 2
		if _, _, err := Parse(k, c); !errors.As(err, &newer) {
			t.Errorf("a newer version: %v", err)
		}
	})
}

func alter(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] += 4
	return b
}

// TestMaxFooterIsEnforced checks that a trailer with a length above MaxFooter
// is refused before its bytes are read, even in a pack that is large enough.
func TestMaxFooterIsEnforced(t *testing.T) {
	b := make([]byte, 8<<20)
	copy(b, Prelude(Kind, Version, seal.Plain, nil))
	binary.BigEndian.PutUint32(b[len(b)-TrailerSize:], MaxFooter+seal.Overhead+1)
	copy(b[len(b)-4:], closing[:])
	if _, _, err := Parse(nil, b); !errors.Is(err, frame.ErrDamaged) || !strings.Contains(err.Error(), "end as a pack ends") {
		t.Errorf("error is %v", err)
	}
}

func TestFooterRefuses(t *testing.T) {
	id := digest.Of([]byte("x"))
	one := func(b FooterBlock) Footer { return Footer{Blocks: []FooterBlock{b}} }
	many := make([]chunk.Ref, MaxChunks/2+1)
	for i := range many {
		many[i] = chunk.Ref{ID: id, Size: 1}
	}
	half := FooterBlock{Stored: 1, Raw: uint32(len(many)), Chunks: many}
	for name, f := range map[string]Footer{
		"a block of nothing":       one(FooterBlock{Stored: 0, Raw: 1, Chunks: []chunk.Ref{{ID: id, Size: 1}}}),
		"a block too long":         one(FooterBlock{Stored: MaxStored + 1, Raw: 1, Chunks: []chunk.Ref{{ID: id, Size: 1}}}),
		"no raw bytes":             one(FooterBlock{Stored: 1, Raw: 0}),
		"too many raw bytes":       one(FooterBlock{Stored: 1, Raw: MaxBlock + 1, Chunks: []chunk.Ref{{ID: id, Size: chunk.MaxSize}, {ID: id, Size: chunk.MaxSize}, {ID: id, Size: 1}}}),
		"a hole":                   one(FooterBlock{Stored: 1, Raw: 1, Chunks: []chunk.Ref{{Size: 1}}}),
		"a chunk of nothing":       one(FooterBlock{Stored: 1, Raw: 1, Chunks: []chunk.Ref{{ID: id, Size: 1}, {ID: id, Size: 0}}}),
		"a chunk too large":        one(FooterBlock{Stored: 1, Raw: chunk.MaxSize + 1, Chunks: []chunk.Ref{{ID: id, Size: chunk.MaxSize + 1}}}),
		"chunks that do not fill":  one(FooterBlock{Stored: 1, Raw: 2, Chunks: []chunk.Ref{{ID: id, Size: 1}}}),
		"chunks that overflow":     one(FooterBlock{Stored: 1, Raw: 2, Chunks: []chunk.Ref{{ID: id, Size: 3}}}),
		"more chunks than allowed": {Blocks: []FooterBlock{half, half}},
	} {
		end := PreludeSize
		for _, b := range f.Blocks {
			end += int(b.Stored)
		}
		if err := f.Validate(end); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
		w := Writer{buf: make([]byte, end), footer: f}
		if p, err := w.Finish(); err == nil {
			t.Errorf("%s: a pack of %d bytes left", name, len(p.Bytes))
		}
	}
	good := one(FooterBlock{Stored: 1, Raw: 1, Chunks: []chunk.Ref{{ID: id, Size: 1}}})
	if err := good.Validate(PreludeSize + 1); err != nil {
		t.Error(err)
	}
	for _, end := range []int{PreludeSize, PreludeSize + 2} {
		if err := good.Validate(end); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("blocks that end elsewhere than %d: %v", end, err)
		}
	}
}

// TestWriterRefusesToLetABadPackOut makes the mistakes that a caller could
// make.
func TestWriterRefusesToLetABadPackOut(t *testing.T) {
	raw := noise(100)
	for name, add := range map[string]func(*Writer){
		"sizes that do not add up": func(w *Writer) { w.Add(Block{Payload: raw, Raw: 100, Chunks: refs(nil, raw, 99)}) },
		"a block too large": func(w *Writer) {
			b := noise(MaxBlock + 1)
			w.Add(Block{Payload: b, Raw: len(b), Chunks: refs(nil, b, chunk.MaxSize, chunk.MaxSize, 1)})
		},
		"a block without chunks": func(w *Writer) { w.Add(Block{Payload: raw, Raw: 100}) },
		"a pack too large": func(w *Writer) {
			b := noise(MaxBlock)
			for range MaxSize / MaxBlock {
				w.Add(Block{Payload: b, Raw: len(b), Chunks: refs(nil, b, chunk.MaxSize, chunk.MaxSize)})
			}
		},
	} {
		w, err := NewWriter(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		add(w)
		if _, err := w.Finish(); err == nil {
			t.Errorf("%s: the pack left", name)
		}
	}
}

func TestWriterIsFull(t *testing.T) {
	w, err := NewWriter(nil, make([]byte, 0, TargetSize+MaxStored))
	if err != nil {
		t.Fatal(err)
	}
	b := noise(MaxBlock)
	n := 0
	for ; !w.Full(); n++ {
		w.Add(Block{Payload: b, Raw: len(b), Chunks: refs(nil, b, chunk.MaxSize, chunk.MaxSize)})
	}
	if w.Size() < TargetSize || w.Size() > MaxSize-MaxStored || w.Chunks() != 2*n {
		t.Errorf("full at %d bytes, %d chunks", w.Size(), w.Chunks())
	}
	if _, err := w.Finish(); err != nil {
		t.Error(err)
	}
	w, err = NewWriter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	tiny := Block{Payload: make([]byte, MaxChunks/4), Raw: MaxChunks / 4}
	for range MaxChunks / 4 {
		tiny.Chunks = append(tiny.Chunks, chunk.Ref{ID: digest.Of(nil), Size: 1})
	}
	for !w.Full() {
		w.Add(tiny)
	}
	p, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.BigEndian.Uint32(p.Bytes[len(p.Bytes)-TrailerSize:]); n > MaxFooter {
		t.Errorf("a footer of as many chunks as there can be has %d bytes", n)
	}
}

func TestWriterKeepsItsBuffer(t *testing.T) {
	buf := make([]byte, 0, 1<<20)
	w, err := NewWriter(keysOf(t), buf)
	if err != nil {
		t.Fatal(err)
	}
	raw := noise(1000)
	w.Add(Block{Payload: raw, Raw: len(raw), Chunks: refs(nil, raw, len(raw))})
	p, err := w.Finish()
	if err != nil || &p.Bytes[0] != &buf[:1][0] {
		t.Errorf("the pack is not in the buffer that was given, %v", err)
	}
}

func TestParsePreludeRefuses(t *testing.T) {
	good := Prelude(Kind, Version, seal.AES256GCM, bytes.Repeat([]byte{1}, seal.SaltSize))
	if salt, err := ParsePrelude(Kind, Version, good); err != nil || len(salt) != seal.SaltSize {
		t.Fatalf("salt %x, %v", salt, err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "cut short": good[:PreludeSize-1], "another kind": append([]byte("nfsegm\x00\x01"), good[8:]...),
		"another cipher": alter(good, 8), "reserved bytes": alter(good, 15),
	} {
		if _, err := ParsePrelude(Kind, Version, b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	// Sealed packs in a plain repository, and the reverse.
	sealed, plain := write(t, keysOf(t), [][]byte{noise(9)}), write(t, nil, [][]byte{noise(9)})
	if _, _, err := Parse(nil, sealed.Bytes); err == nil {
		t.Error("a sealed pack was parsed without a key")
	}
	if _, _, err := Parse(keysOf(t), plain.Bytes); err == nil {
		t.Error("a plain pack was parsed in an encrypted repository")
	}
}
