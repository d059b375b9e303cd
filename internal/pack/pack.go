// Package pack is the format of packs: objects of 16 to 32 MiB that hold
// blocks of chunks and end with a footer. The footer lists the blocks, so
// that the index can be rebuilt from packs alone. See docs/format/pack.md.
package pack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/seal"
)

const (
	// Kind and Version identify a pack in its header.
	Kind    = "pack"
	Version = 1

	// PreludeSize is the length of everything before the first block: the
	// header, the cipher, seven zero bytes, the salt.
	PreludeSize = frame.HeaderSize + 8 + seal.SaltSize
	// TrailerSize covers the footer's stored length and the closing magic.
	TrailerSize = 8

	// TargetSize is the length in bytes at which a writer closes a pack.
	TargetSize = 18 << 20
	// MaxSize bounds a pack, in bytes.
	MaxSize = 32 << 20
	// MaxChunks bounds the chunks of one pack.
	MaxChunks = 1 << 16
	// MaxBlock bounds a block before compression, in bytes.
	MaxBlock = 1 << 20
	// MaxFooter bounds a footer before sealing, in bytes.
	MaxFooter = 4 << 20
	// MaxStored bounds a block as stored: codec byte, payload, sealing.
	MaxStored = MaxBlock + 1 + seal.Overhead
)

// Codecs of a block.
const (
	Stored = 0 // the chunks as they are
	Zstd   = 1 // one zstd frame, RFC 8878
)

var closing = [4]byte{'n', 'f', 'p', 'e'}

// Prelude returns the first PreludeSize bytes of a sealed or plain object. A
// plain object does not use the salt but gets a random one nevertheless. So
// no two objects are identical, and gc that deletes an old one cannot hit the
// same object just written by a push.
func Prelude(kind string, version uint16, cipher uint8, salt []byte) []byte {
	b := make([]byte, PreludeSize)
	copy(b, frame.Header(kind, version))
	b[frame.HeaderSize] = cipher
	if cipher == seal.Plain {
		rand.Read(b[frame.HeaderSize+8:]) // never fails (crypto/rand)
	} else {
		copy(b[frame.HeaderSize+8:], salt)
	}
	return b
}

// ParsePrelude checks a prelude and returns the salt that sealing used: nil
// for a plain object.
func ParsePrelude(kind string, supported uint16, b []byte) (salt []byte, err error) {
	if err := frame.CheckHeader(kind, supported, b); err != nil {
		return nil, err
	}
	if len(b) < PreludeSize {
		return nil, fmt.Errorf("%s: truncated in its prelude: %w", kind, frame.ErrDamaged)
	}
	cipher, pad, salt := b[frame.HeaderSize], b[frame.HeaderSize+1:frame.HeaderSize+8], b[frame.HeaderSize+8:PreludeSize]
	if !bytes.Equal(pad, make([]byte, 7)) {
		return nil, fmt.Errorf("%s: reserved bytes are set: %w", kind, frame.ErrDamaged)
	}
	switch cipher {
	case seal.Plain:
		return nil, nil
	case seal.AES256GCM:
		return bytes.Clone(salt), nil
	}
	return nil, fmt.Errorf("%s: cipher %d is not known: %w", kind, cipher, frame.ErrDamaged)
}

// Block is up to MaxBlock bytes of chunks that are compressed together: the
// unit of fetch.
type Block struct {
	Codec   uint8
	Payload []byte // the chunks one after another, compressed by Codec
	Raw     int    // bytes of the chunks before compression
	Chunks  []chunk.Ref
}

// Compress makes a block of raw, the concatenated chunks, and appends the
// payload to dst. If zstd saves less than 3 %, the block is stored, which
// saves the site a useless decompression. The encoder itself gives up early
// on incompressible data: random bytes pass at 9 GB/s, zip files at 2.5 GB/s
// and programs at 300 MB/s, so testing before compressing would save nothing.
func Compress(enc *zstd.Encoder, dst, raw []byte, chunks []chunk.Ref) Block {
	payload := enc.EncodeAll(raw, dst)
	if len(payload)-len(dst) < len(raw)-len(raw)/32 {
		return Block{Codec: Zstd, Payload: payload[len(dst):], Raw: len(raw), Chunks: chunks}
	}
	payload = append(dst, raw...)
	return Block{Codec: Stored, Payload: payload[len(dst):], Raw: len(raw), Chunks: chunks}
}

// NewEncoder returns an encoder for Compress, for one goroutine.
func NewEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxBlock), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
}

// NewDecoder returns a decoder for OpenBlock, for one goroutine. It refuses
// to produce more than MaxBlock bytes, whatever size a frame declares.
func NewDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxBlock),
		zstd.WithDecoderMaxWindow(MaxBlock), zstd.WithDecoderLowmem(true))
}

// OpenBlock opens and decompresses a block as stored at offset, appending to
// dst. Errors wrap frame.ErrDamaged or seal.ErrOpen.
func OpenBlock(obj *seal.Object, dec *zstd.Decoder, dst, stored []byte, offset uint32) ([]byte, error) {
	if len(stored) > MaxStored {
		return nil, fmt.Errorf("block of %d bytes: %w", len(stored), frame.ErrDamaged)
	}
	if obj != nil {
		opened, err := obj.Open(nil, stored, uint64(offset))
		if err != nil {
			return nil, err
		}
		stored = opened
	}
	if len(stored) < 1 {
		return nil, fmt.Errorf("empty block: %w", frame.ErrDamaged)
	}
	switch payload := stored[1:]; stored[0] {
	case Stored:
		if len(payload) > MaxBlock {
			return nil, fmt.Errorf("block of %d bytes: %w", len(payload), frame.ErrDamaged)
		}
		return append(dst, payload...), nil
	case Zstd:
		// The decoder stops at MaxBlock bytes (see NewDecoder) and counts the
		// bytes already in dst, so it gets only the spare capacity after
		// them.
		room := dst[len(dst):]
		out, err := dec.DecodeAll(payload, room)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w: %w", frame.ErrDamaged, err)
		}
		if len(dst) == 0 {
			return out, nil
		}
		return append(dst, out...), nil // copies onto itself if the room sufficed
	default:
		return nil, fmt.Errorf("codec %d is not known: %w", stored[0], frame.ErrDamaged)
	}
}

// FooterBlock describes one block in a footer.
type FooterBlock struct {
	_      struct{}    `cbor:",toarray"`
	Stored uint32      `json:"stored"` // bytes in the pack, codec and sealing included
	Raw    uint32      `json:"raw"`    // bytes of its chunks
	Chunks []chunk.Ref `json:"chunks"`
}

// Footer lists the blocks of a pack, starting at PreludeSize.
type Footer struct {
	_      struct{}      `cbor:",toarray"`
	Blocks []FooterBlock `json:"blocks"`
}

// Validate checks that the blocks fill end-PreludeSize bytes exactly and that
// each block's chunks fill the block.
func (f *Footer) Validate(end int) error {
	at, n := PreludeSize, 0
	for i, b := range f.Blocks {
		if b.Stored < 1 || b.Stored > MaxStored || b.Raw < 1 || b.Raw > MaxBlock {
			return fmt.Errorf("pack footer: block %d: %d bytes stored, %d raw: %w", i, b.Stored, b.Raw, frame.ErrDamaged)
		}
		var sum int64
		for _, c := range b.Chunks {
			if c.Hole() || c.Size < 1 || c.Size > chunk.MaxSize {
				return fmt.Errorf("pack footer: block %d: chunk of %d bytes: %w", i, c.Size, frame.ErrDamaged)
			}
			sum += c.Size
		}
		if sum != int64(b.Raw) {
			return fmt.Errorf("pack footer: block %d holds %d bytes, its chunks %d: %w", i, b.Raw, sum, frame.ErrDamaged)
		}
		at += int(b.Stored)
		n += len(b.Chunks)
	}
	if at != end || n > MaxChunks {
		return fmt.Errorf("pack footer: blocks end at %d, the footer begins at %d, %d chunks: %w", at, end, n, frame.ErrDamaged)
	}
	return nil
}

// Location is the position of a chunk in its pack.
type Location struct {
	Block  uint32 // offset of the block in the pack
	Stored uint32 // the block's length there
	Offset uint32 // of the chunk within the opened block
	Size   uint32 // of the chunk
}

// Each calls fn for every chunk with its location.
func (f *Footer) Each(fn func(id digest.Digest, at Location)) {
	at := uint32(PreludeSize)
	for _, b := range f.Blocks {
		var off uint32
		for _, c := range b.Chunks {
			fn(c.ID, Location{Block: at, Stored: b.Stored, Offset: off, Size: uint32(c.Size)})
			off += uint32(c.Size)
		}
		at += b.Stored
	}
}

// Writer collects blocks into one pack. Not safe for concurrent use.
type Writer struct {
	obj    *seal.Object
	salt   []byte
	buf    []byte
	footer Footer
	chunks int
}

// NewWriter starts a pack in buf[:0].
func NewWriter(keys *seal.Keys, buf []byte) (*Writer, error) {
	salt := keys.NewSalt()
	obj, err := keys.Object(Kind, salt)
	if err != nil {
		return nil, err
	}
	return &Writer{obj: obj, salt: salt, buf: append(buf[:0], Prelude(Kind, Version, keys.Cipher(), salt)...)}, nil
}

// Size returns the bytes written so far, without the footer.
func (w *Writer) Size() int { return len(w.buf) }

// Chunks returns the number of chunks added so far.
func (w *Writer) Chunks() int { return w.chunks }

// Full reports whether the caller should finish the pack before adding a
// block.
func (w *Writer) Full() bool { return len(w.buf) >= TargetSize || w.chunks >= MaxChunks*3/4 }

// Add appends a block, which must not hold more than MaxBlock bytes or
// MaxChunks/4 chunks. It keeps b.Chunks and copies b.Payload.
func (w *Writer) Add(b Block) {
	at := len(w.buf)
	if w.obj == nil {
		w.buf = append(append(w.buf, b.Codec), b.Payload...)
	} else {
		w.buf = w.obj.Seal(w.buf, append([]byte{b.Codec}, b.Payload...), uint64(at))
	}
	w.footer.Blocks = append(w.footer.Blocks, FooterBlock{Stored: uint32(len(w.buf) - at), Raw: uint32(b.Raw), Chunks: b.Chunks})
	w.chunks += len(b.Chunks)
}

// Finished is a complete pack.
type Finished struct {
	Digest digest.Digest
	Bytes  []byte
	Salt   []byte // nil in a plain repository
	Footer Footer
}

// Finish appends the footer, reads it back and compares, so that an unreadable
// pack never leaves the process.
func (w *Writer) Finish() (Finished, error) {
	body, err := frame.Marshal(&w.footer)
	if err != nil {
		return Finished{}, fmt.Errorf("encode pack footer: %w", err)
	}
	at := len(w.buf)
	w.buf = w.obj.Seal(w.buf, body, uint64(at))
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(w.buf)-at))
	w.buf = append(w.buf, closing[:]...)
	if len(w.buf) > MaxSize {
		return Finished{}, fmt.Errorf("pack of %d bytes exceeds %d", len(w.buf), MaxSize)
	}
	f, err := readFooter(w.obj, w.buf, len(w.buf))
	if err != nil {
		return Finished{}, fmt.Errorf("pack does not read back: %w", err)
	}
	if again, err := frame.Marshal(f); err != nil || !bytes.Equal(again, body) {
		return Finished{}, errors.New("pack footer reads back differently")
	}
	return Finished{Digest: digest.Of(w.buf), Bytes: w.buf, Salt: w.salt, Footer: *f}, nil
}

// Parse reads a whole pack's prelude and footer.
func Parse(keys *seal.Keys, b []byte) (*Footer, *seal.Object, error) {
	salt, err := ParsePrelude(Kind, Version, b)
	if err != nil {
		return nil, nil, err
	}
	obj, err := keys.Object(Kind, salt)
	if err != nil {
		return nil, nil, err
	}
	f, err := readFooter(obj, b, len(b))
	return f, obj, err
}

// ReadFooter reads the footer from the tail of a pack of size bytes. salt is
// from the pack's prelude. If tail is too short, ReadFooter returns how many
// bytes of tail it needs.
func ReadFooter(keys *seal.Keys, salt, tail []byte, size int64) (f *Footer, need int64, err error) {
	obj, err := keys.Object(Kind, salt)
	if err != nil {
		return nil, 0, err
	}
	if size > MaxSize {
		return nil, 0, fmt.Errorf("pack of %d bytes, at most %d are allowed: %w", size, MaxSize, frame.ErrDamaged)
	}
	n, err := footerLength(tail, int(size))
	if err != nil {
		return nil, 0, err
	}
	if len(tail) < n+TrailerSize {
		return nil, int64(n + TrailerSize), nil
	}
	f, err = readFooter(obj, tail, int(size))
	return f, 0, err
}

func footerLength(tail []byte, size int) (int, error) {
	if size < PreludeSize+TrailerSize || size > MaxSize || len(tail) < TrailerSize {
		return 0, fmt.Errorf("pack of %d bytes: truncated: %w", size, frame.ErrDamaged)
	}
	t := tail[len(tail)-TrailerSize:]
	n := int64(binary.BigEndian.Uint32(t))
	if !bytes.Equal(t[4:], closing[:]) || n > int64(size-PreludeSize-TrailerSize) || n > MaxFooter+seal.Overhead {
		return 0, fmt.Errorf("pack does not end as a pack ends: %w", frame.ErrDamaged)
	}
	return int(n), nil
}

func readFooter(obj *seal.Object, tail []byte, size int) (*Footer, error) {
	n, err := footerLength(tail, size)
	if err != nil {
		return nil, err
	}
	end := size - TrailerSize - n
	stored := tail[len(tail)-TrailerSize-n : len(tail)-TrailerSize]
	body, err := obj.Open(nil, stored, uint64(end))
	if err != nil {
		return nil, fmt.Errorf("pack footer: %w", err)
	}
	f, err := parseFooter(body)
	if err != nil {
		return nil, fmt.Errorf("pack footer: %w", err)
	}
	if err := f.Validate(end); err != nil {
		return nil, err
	}
	return f, nil
}

// minFooterBlock is the least number of bytes that a FooterBlock takes: two
// numbers and one chunk.
const minFooterBlock = 1 + 1 + 1 + 1 + chunk.RefSize

func parseFooter(body []byte) (*Footer, error) {
	r := frame.NewReader(body)
	r.Struct(1)
	f := Footer{Blocks: make([]FooterBlock, r.Array(MaxChunks, minFooterBlock))}
	for i := range f.Blocks {
		b := &f.Blocks[i]
		r.Struct(3)
		b.Stored = uint32(r.Uint(MaxStored))
		b.Raw = uint32(r.Uint(MaxBlock))
		var err error
		if b.Chunks, err = chunk.ReadRefs(r, MaxChunks); err != nil {
			return nil, err
		}
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return &f, nil
}
