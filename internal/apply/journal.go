package apply

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
	"nightferry/internal/frame"
)

// The journal is what a commit intends, complete before anything of it is
// done: a header, records, and the SHA-256 of all that. It holds all that is
// needed to finish the commit with no repository at hand, and to tell, however
// often it is begun anew, what is done already.
const (
	journalKind    = "jrnl"
	journalVersion = 1
	maxRecord      = 64 << 10
)

// opKind is one kind of step.
type opKind uint8

// The steps. Those of the first half only clear the way; none of the second
// begins before all of the first are done and journal.moved says so, because a
// path that was cleared may then hold something new.
const (
	opOut    opKind = iota + 1 // first: move path out to slot
	opClear                    // first: remove the folder path, which is empty by then
	opRecase                   // first: move the folder that waits in slot to path, its name in another case
	opMkdir                    // second, as all below: make the folder path
	opPlace                    // move slot to path
	opTouch                    // set mode and time of the file or folder path
	opDelete                   // delete the file or link path, if it is still the one of size and time
	opRmdir                    // remove the folder path, if it is empty
)

func (k opKind) first() bool { return k <= opRecase }

// op is one step.
type op struct {
	kind   opKind
	dir    bool // opOut, opTouch: a folder
	over   bool // opPlace: a file may be at path, whose rights the new one gets
	linked bool // opDelete: a link or special file, which has no size and time
	mode   uint16
	path   string
	slot   string // where a moved file waits, or where the new one is staged
	size   int64
	mtime  int64
}

func (o *op) append(b []byte) []byte {
	flags := byte(0)
	if o.dir {
		flags |= 1
	}
	if o.linked {
		flags |= 2
	}
	if o.over {
		flags |= 4
	}
	b = append(b, byte(o.kind), flags)
	b = binary.AppendUvarint(b, uint64(o.mode))
	b = binary.AppendVarint(b, o.size)
	b = binary.AppendVarint(b, o.mtime)
	b = binary.AppendUvarint(b, uint64(len(o.path)))
	b = append(b, o.path...)
	return append(b, o.slot...)
}

func parseOp(b []byte) (o op, err error) {
	bad := fmt.Errorf("journal record: %w", frame.ErrDamaged)
	if len(b) < 2 || opKind(b[0]) < opOut || opKind(b[0]) > opRmdir {
		return o, bad
	}
	o.kind, o.dir, o.linked, o.over = opKind(b[0]), b[1]&1 != 0, b[1]&2 != 0, b[1]&4 != 0
	b = b[2:]
	mode, n := binary.Uvarint(b)
	if n <= 0 {
		return o, bad
	}
	o.mode, b = uint16(mode), b[n:]
	for _, v := range []*int64{&o.size, &o.mtime} {
		if *v, n = binary.Varint(b); n <= 0 {
			return o, bad
		}
		b = b[n:]
	}
	l, n := binary.Uvarint(b)
	if n <= 0 || l > uint64(len(b)-n) {
		return o, bad
	}
	o.path, o.slot = string(b[n:n+int(l)]), string(b[n+int(l):])
	return o, nil
}

// writeJournal makes the steps durable. It returns the journal's sum, which
// ties journal.moved to it.
func (s *site) writeJournal(steps steps) (sum digest.Digest, err error) {
	err = s.root.WriteStream(journalName, 0o644, func(w io.Writer) error {
		h := sha256.New()
		w = io.MultiWriter(w, h)
		if _, err := w.Write(frame.Header(journalKind, journalVersion)); err != nil {
			return err
		}
		var buf, rec []byte
		err := steps(func(o op) error {
			rec = o.append(rec[:0])
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
		h.Sum(sum[:0])
		_, err = w.Write(sum[:])
		return err
	})
	if err != nil {
		err = fmt.Errorf("write the journal: %w", err)
	}
	return sum, err
}

// errNoJournal says that no commit is under way.
var errNoJournal = errors.New("no journal")

// readJournal calls fn for every step. It first proves the whole, so that fn
// never sees a step of a damaged journal.
func (s *site) readJournal(fn func(op) error) (digest.Digest, error) {
	want, err := s.scanJournal(nil)
	if err != nil || fn == nil {
		return want, err
	}
	_, err = s.scanJournal(fn)
	return want, err
}

func (s *site) scanJournal(fn func(op) error) (sum digest.Digest, err error) {
	f, err := s.root.Open(journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return sum, errNoJournal
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
		o, err := parseOp(buf[:n])
		if err != nil {
			return sum, err
		}
		if fn != nil {
			if err := fn(o); err != nil {
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

// hashed hashes what is read through it.
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

// moved reports whether the first half of the journal with that sum is done.
func (s *site) moved(sum digest.Digest) (bool, error) {
	f, err := s.root.Open(movedName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(io.LimitReader(f, digest.Size+1))
	return bytes.Equal(b, sum[:]), errors.Join(err, f.Close())
}

// forgetJournal ends a commit. The journal's name goes first: without it
// journal.moved means nothing.
func (s *site) forgetJournal() error {
	for _, name := range []string{journalName, movedName, nextName} {
		if err := s.removeFile(name); err != nil {
			return err
		}
		if name == journalName {
			if err := s.root.SyncDir(stateDir); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeFile removes a file that may be gone already.
func (s *site) removeFile(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
