package durable

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Slots is a file that stores the newest of a series of values in space that was written when the file was made. A
// later Write needs no free space, so it also works while the volume is full.
//
// The file holds two slots. Write overwrites the slot with the older value and syncs the file. A crash during that
// damages only this slot; the other still holds the previous value.
//
// Known gap: a file system that writes each block to a new place (ZFS, Btrfs,
// ReFS with integrity streams) needs free blocks for that.
type Slots struct {
	f    *File
	max  int
	seq  uint64 // of the newest value
	last int    // the slot that holds it
}

// slotHeader is the size of sequence, length and the SHA-256 of both and the value.
const slotHeader = 8 + 4 + sha256.Size

// OpenSlots opens the file for values of up to max bytes and returns the newest value, or nil if there is none. If
// the file is missing, or shorter because a crash ended its creation, OpenSlots makes it in full size. It refuses a
// file with a value in slots of another size.
func OpenSlots(r *Root, name string, max int) (_ *Slots, value []byte, err error) {
	f, err := r.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = r.create(name, 0, os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	s := &Slots{f: f, max: max}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() != 2*s.stride() {
		if err := s.otherSize(info.Size()); err != nil {
			return nil, nil, err
		}
		return s, nil, s.reserve(r)
	}
	for slot := range 2 {
		seq, v, err := s.read(slot)
		if err != nil {
			return nil, nil, err
		}
		if v != nil && seq >= s.seq {
			s.seq, s.last, value = seq, slot, v
		}
	}
	return s, value, nil
}

// otherSize refuses a file of another size that is longer or holds a value. A file of less than 1 KiB is a remnant of
// its creation.
func (s *Slots) otherSize(size int64) error {
	other := &Slots{f: s.f, max: int(size/2) - slotHeader}
	holds := size > 2*s.stride()
	for slot := 0; slot < 2 && size >= 1<<10 && !holds; slot++ {
		for _, x := range []*Slots{s, other} { // cut off in its second slot, or made with other slots
			_, v, err := x.read(slot)
			if err != nil {
				return err
			}
			holds = holds || v != nil
		}
	}
	if holds {
		return fmt.Errorf("open %q: it has %d bytes, want %d: another version made it, or it was cut off (move it aside)", s.f.name, size, 2*s.stride())
	}
	return nil
}

func (s *Slots) stride() int64 { return int64(slotHeader + s.max) }

// reserve fills the whole file. The bytes are random, because a compressing file system reserves no space for
// zeros.
func (s *Slots) reserve(r *Root) error {
	b := make([]byte, 1<<18)
	for off, end := int64(0), 2*s.stride(); off < end; {
		part := b[:min(int64(len(b)), end-off)]
		rand.Read(part) // never fails (crypto/rand)
		n, err := s.f.WriteAt(part, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return errors.Join(s.f.Truncate(2*s.stride()), s.f.Sync(), r.SyncDir("."))
}

// read returns a slot's value, or nil if the slot holds no complete one.
func (s *Slots) read(slot int) (seq uint64, value []byte, err error) {
	b := make([]byte, s.stride())
	if _, err := s.f.ReadAt(b, int64(slot)*s.stride()); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, wrap("read", s.f.name, err)
	}
	n := binary.BigEndian.Uint32(b[8:])
	if int64(n) > int64(s.max) {
		return 0, nil, nil
	}
	value = b[slotHeader : slotHeader+int(n)]
	if sum := slotSum(b, value); string(sum[:]) != string(b[12:slotHeader]) {
		return 0, nil, nil
	}
	return binary.BigEndian.Uint64(b), value, nil
}

func slotSum(header, value []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(header[:12])
	h.Write(value)
	return [sha256.Size]byte(h.Sum(nil))
}

// Write makes value the newest. It is durable when Write returns nil. After an error, the previous value is the
// newest: Write has made the slot of the new one invalid, as far as the disk took that.
func (s *Slots) Write(value []byte) error {
	if len(value) > s.max {
		return fmt.Errorf("write %q: %d bytes exceed %d", s.f.name, len(value), s.max)
	}
	slot := 1 - s.last
	err := s.put(slot, s.seq+1, value)
	if err != nil {
		// The bytes may be in the file although they are not durable: they must not be read as the newest value.
		return errors.Join(err, s.spoil(slot))
	}
	s.seq, s.last = s.seq+1, slot
	return nil
}

func (s *Slots) put(slot int, seq uint64, value []byte) error {
	b := make([]byte, slotHeader, slotHeader+len(value))
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint32(b[8:], uint32(len(value)))
	sum := slotSum(b, value)
	copy(b[12:], sum[:])
	if _, err := s.f.WriteAt(append(b, value...), int64(slot)*s.stride()); err != nil {
		return err
	}
	return s.f.Sync()
}

// spoil makes a slot's value invalid.
func (s *Slots) spoil(slot int) error {
	if _, err := s.f.WriteAt(make([]byte, slotHeader), int64(slot)*s.stride()); err != nil {
		return err
	}
	return s.f.Sync()
}

// Close closes the file.
func (s *Slots) Close() error { return s.f.Close() }
