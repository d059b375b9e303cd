package pack

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"nightferry/internal/frame"
	"nightferry/internal/seal"
)

func TestOpenBlockRefuses(t *testing.T) {
	_, dec := codecs(t)
	enc, _ := codecs(t)
	good := append([]byte{Zstd}, enc.EncodeAll(text(1000), nil)...)
	if raw, err := OpenBlock(nil, dec, nil, good, 48); err != nil || !bytes.Equal(raw, text(1000)) {
		t.Fatalf("the good one: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a codec that is not known": {2, 0}, "no frame": {Zstd, 1, 2, 3}, "cut short": good[:len(good)-1],
		"bytes after the frame": append(bytes.Clone(good), 1, 2, 3), "too long": make([]byte, MaxStored+1),
		"stored above the bound": make([]byte, MaxBlock+2),
		// A frame that decoders skip (RFC 8878 §3.1.2) after the good one.
		"a MiB of nothing": append(append(bytes.Clone(good), 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0x10, 0), make([]byte, 1<<20)...),
	} {
		if raw, err := OpenBlock(nil, dec, nil, b, 48); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: opened %d bytes, %v", name, len(raw), err)
		}
	}
	if _, err := OpenBlock(nil, dec, nil, make([]byte, MaxBlock+1), 48); err != nil {
		t.Errorf("the largest stored block: %v", err)
	}
	k := keysOf(t)
	obj, err := k.Object(Kind, bytes.Repeat([]byte{7}, seal.SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	sealed := obj.Seal(nil, good, 48)
	if raw, err := OpenBlock(obj, dec, nil, sealed, 48); err != nil || !bytes.Equal(raw, text(1000)) {
		t.Errorf("sealed: %v", err)
	}
	for name, c := range map[string]struct {
		b      []byte
		offset uint32
	}{"another offset": {sealed, 49}, "altered": {alter(sealed, 3), 48}, "not sealed": {good, 48}} {
		if _, err := OpenBlock(obj, dec, nil, c.b, c.offset); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// bombs returns small blocks that a naive decoder expands to gigabytes.
func bombs(t testing.TB) map[string][]byte {
	t.Helper()
	block := func(last bool, kind byte, size int) []byte { // RFC 8878 §3.1.1.2
		h := size<<3 | int(kind)<<1
		if last {
			h |= 1
		}
		return []byte{byte(h), byte(h >> 8), byte(h >> 16)}
	}
	const rle = 1
	repeat := func(head []byte, n int) []byte {
		b := append([]byte{Zstd}, head...)
		for i := range n {
			b = append(append(b, block(i == n-1, rle, 128<<10)...), 'A')
		}
		return b
	}
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	head := func(b ...byte) []byte { return append(bytes.Clone(magic), b...) }
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	two := enc.EncodeAll(make([]byte, MaxBlock), nil)
	over := enc.EncodeAll(make([]byte, MaxBlock+1), nil)
	return map[string][]byte{
		"4 GiB of one byte":             repeat(head(0x00, 0x50), 32<<10), // window 1 MiB, no content size
		"a claim of 1 GiB":              repeat(head(0xa0, 0, 0, 0, 0x40), 8),
		"a claim of 2^63 bytes":         repeat(head(0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80), 1),
		"a window of 2 GiB":             repeat(head(0x00, 0xa8), 1),
		"two frames of a MiB":           append(append([]byte{Zstd}, two...), two...),
		"one byte above the bound":      append([]byte{Zstd}, over...),
		"a dictionary that is not here": append([]byte{Zstd}, head(0x03, 0x50, 1, 2, 3, 4)...),
	}
}

func TestBombsAreRefusedInLittleMemory(t *testing.T) {
	for name, b := range bombs(t) {
		_, dec := codecs(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		raw, err := OpenBlock(nil, dec, make([]byte, 0, MaxBlock), b, 48)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: opened %d bytes, %v", name, len(raw), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
			t.Errorf("%s: took %d MiB", name, took>>20)
		}
	}
}

func TestOpenBlockUsesTheBufferItIsGiven(t *testing.T) {
	enc, dec := codecs(t)
	b := append([]byte{Zstd}, enc.EncodeAll(text(MaxBlock), nil)...)
	buf := make([]byte, 0, MaxBlock)
	if _, err := OpenBlock(nil, dec, buf, b, 48); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(20, func() {
		raw, err := OpenBlock(nil, dec, buf, b, 48)
		if err != nil || &raw[0] != &buf[:1][0] {
			t.Error("another buffer was used")
		}
	}); n > 2 {
		t.Errorf("%v allocations for each block", n)
	}
}

func BenchmarkCompress(b *testing.B) {
	enc, _ := codecs(b)
	for name, raw := range map[string][]byte{"noise": noise(MaxBlock), "text": text(MaxBlock)} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 2*MaxBlock)
			b.SetBytes(MaxBlock)
			b.ReportAllocs()
			for b.Loop() {
				Compress(enc, dst, raw, nil)
			}
		})
	}
}
