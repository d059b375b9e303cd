package commit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
)

// The journal holds the whole intent of a commit, and is complete before the first step: a header, records, and the
// SHA-256 of all that. It holds all data needed to finish the commit and to detect, after any number of restarts,
// which steps are done.
const (
	journalKind    = "jrnl"
	journalVersion = 2
	maxRecord      = 64 << 10
)

// Write makes the steps durable.
func (c *Commit) Write(steps Steps) error {
	err := c.root.WriteStream(c.pathOf(Journal), 0o644, func(w io.Writer) error {
		h := sha256.New()
		w = io.MultiWriter(w, h)
		if _, err := w.Write(frame.Header(journalKind, journalVersion)); err != nil {
			return err
		}
		var buf, rec []byte
		err := steps(func(s Step) error {
			rec = s.appendTo(rec[:0])
			buf = append(binary.AppendUvarint(buf[:0], uint64(len(rec))), rec...)
			_, err := w.Write(buf)
			return err
		})
		if err != nil {
			return err
		}
		if _, err := w.Write([]byte{0}); err != nil {
			return err
		}
		_, err = w.Write(h.Sum(nil))
		return err
	})
	if err != nil {
		err = fmt.Errorf("write the journal: %w", err)
	}
	return err
}

// Pending returns nil if there is a valid journal, else ErrNone, frame.ErrDamaged or another error.
func (c *Commit) Pending() error {
	_, err := c.scanJournal(nil)
	return err
}

// readJournal calls fn for every step. It verifies the whole journal first, so that fn never sees a step of a damaged one.
// It returns the journal's sum, which ties the companion to the journal.
func (c *Commit) readJournal(fn func(Step) error) (digest.Digest, error) {
	sum, err := c.scanJournal(nil)
	if err != nil {
		return sum, err
	}
	_, err = c.scanJournal(fn)
	return sum, err
}

func (c *Commit) scanJournal(fn func(Step) error) (sum digest.Digest, err error) {
	f, err := c.root.Open(c.pathOf(Journal))
	if errors.Is(err, fs.ErrNotExist) {
		return sum, ErrNone
	}
	if durable.IsBlocked(err) {
		err = fmt.Errorf("journal: %w: %w", frame.ErrDamaged, err)
	}
	if err != nil {
		return sum, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	r := &hashed{r: bufio.NewReaderSize(f, 256<<10), h: h}
	head := make([]byte, frame.HeaderSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return sum, fmt.Errorf("journal: %w: %w", frame.ErrDamaged, err)
	}
	if err := frame.CheckHeader(journalKind, journalVersion, head); err != nil {
		return sum, err
	}
	buf := make([]byte, maxRecord)
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > maxRecord {
			return sum, fmt.Errorf("journal: record of %d bytes: %w", n, errors.Join(frame.ErrDamaged, err))
		}
		if n == 0 {
			break
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return sum, fmt.Errorf("journal: %w: %w", frame.ErrDamaged, err)
		}
		s, err := parseStep(buf[:n])
		if err != nil {
			return sum, err
		}
		if fn != nil {
			if err := fn(s); err != nil {
				return sum, err
			}
		}
	}
	h.Sum(sum[:0])
	var stored digest.Digest
	if _, err := io.ReadFull(r.r, stored[:]); err != nil || stored != sum {
		return sum, fmt.Errorf("journal: its checksum does not match: %w", frame.ErrDamaged)
	}
	return sum, nil
}

// hashed hashes the bytes that are read through it.
type hashed struct {
	r *bufio.Reader
	h hash.Hash
	b [1]byte
}

func (r *hashed) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	return n, err
}

func (r *hashed) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err == nil {
		r.b[0] = b
		r.h.Write(r.b[:])
	}
	return b, err
}

// firstHalfDone reports whether the first half of the journal with that sum is done.
func (c *Commit) firstHalfDone(sum digest.Digest) (bool, error) {
	f, err := c.root.Open(c.pathOf(Moved))
	if errors.Is(err, fs.ErrNotExist) || durable.IsBlocked(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(io.LimitReader(f, digest.Size+1))
	return bytes.Equal(b, sum[:]), errors.Join(err, f.Close())
}
