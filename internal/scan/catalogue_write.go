package scan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
)

// CatalogueWriter writes a catalogue beside the one that it will replace.
// After an error, call only Abort.
type CatalogueWriter struct {
	r     *durable.Root
	f     *durable.File
	name  string
	table *crc32.Table
	buf   []byte // finished blocks, then the open one
	start int    // of the open block's head in buf
	last  []byte // the path of the record before
	fresh bool   // the open block has no record yet
	off   int64
	block uint64
	count uint64
	done  bool
}

// writeBuffer is the number of bytes per write to the file.
const writeBuffer = 1 << 20

// CreateCatalogue starts a catalogue. Until Commit, name keeps its content.
// It overwrites the remains of a writer that died. Only one writer per name
// may be open at a time.
func CreateCatalogue(r *durable.Root, name string) (*CatalogueWriter, error) {
	for _, n := range []string{name, name + ".new"} {
		if _, err := durable.MakeRoom(r, n, false); err != nil {
			return nil, fmt.Errorf("write catalogue: %w", err)
		}
	}
	f, err := r.Create(name+".new", 0)
	if err != nil {
		return nil, fmt.Errorf("write catalogue: %w", err)
	}
	w := &CatalogueWriter{r: r, f: f, name: name, table: crcTable(), buf: make([]byte, 0, writeBuffer+maxBlock)}
	w.buf = append(w.buf, frame.Header(catalogueKind, catalogueVersion)...)
	w.openBlock()
	return w, nil
}

func (w *CatalogueWriter) openBlock() {
	w.start = len(w.buf)
	w.buf = append(w.buf, make([]byte, blockHead)...)
	w.fresh = true
}

// Add appends a record, which must follow the previous one in path order.
func (w *CatalogueWriter) Add(r Record) error {
	if w.count > 0 && manifest.ComparePaths(r.Path, string(w.last)) <= 0 || r.Path == "" {
		return fmt.Errorf("write catalogue: %q does not come after %q in path order", r.Path, w.last)
	}
	if len(r.Path)+len(r.Raw) > maxRecord-128 {
		return fmt.Errorf("write catalogue: %q takes %d bytes, more than a record may", r.Path, len(r.Path)+len(r.Raw))
	}
	shared := 0
	if !w.fresh {
		for shared < len(w.last) && shared < len(r.Path) && w.last[shared] == r.Path[shared] {
			shared++
		}
	}
	b := binary.AppendUvarint(w.buf, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(r.Path)-shared))
	b = append(b, r.Path[shared:]...)
	b = append(b, byte(r.Kind))
	b = binary.AppendVarint(b, r.Stat.Size)
	b = binary.AppendVarint(b, r.Stat.MTime)
	b = binary.AppendVarint(b, r.Stat.CTime)
	b = binary.AppendUvarint(b, r.Stat.ID)
	b = binary.AppendUvarint(b, uint64(r.Stat.Mode))
	b = binary.AppendVarint(b, r.Checked)
	b = binary.AppendUvarint(b, uint64(len(r.Raw)))
	w.buf = append(b, r.Raw...)
	w.last = append(w.last[:0], r.Path...)
	w.fresh = false
	w.count++
	if len(w.buf)-w.start-blockHead < blockTarget {
		return nil
	}
	w.sealBlock()
	if len(w.buf) >= writeBuffer {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.openBlock()
	return nil
}

// sealBlock writes the head of the open block.
func (w *CatalogueWriter) sealBlock() {
	body := w.buf[w.start+blockHead:]
	binary.LittleEndian.PutUint32(w.buf[w.start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(w.buf[w.start+4:], blockChecksum(w.table, w.block, body))
	w.block++
}

func (w *CatalogueWriter) flush() error {
	n, err := w.f.WriteAt(w.buf, w.off)
	w.off += int64(n)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write catalogue: %w", err)
	}
	return nil
}

// Commit ends the catalogue with its header, makes it durable and renames it
// to its name. After a crash, name holds the old catalogue or the complete
// new one.
func (w *CatalogueWriter) Commit(h Header) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write catalogue: %w", err), w.Abort())
		}
	}()
	if w.done {
		return errors.New("it was ended before")
	}
	if w.fresh {
		w.buf = w.buf[:w.start]
	} else {
		w.sealBlock()
	}
	h.Records = w.count
	body, err := frame.Marshal(h)
	if err != nil {
		return err
	}
	if len(body) > maxHeader {
		return fmt.Errorf("its header takes %d bytes, at most %d are allowed", len(body), maxHeader)
	}
	w.buf = append(w.buf, body...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(body)))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, blockChecksum(w.table, headerOrdinal, body))
	w.buf = append(w.buf, catalogueEnd...)
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.done = true
	if err := w.f.Close(); err != nil {
		return err
	}
	if err := w.r.Rename(w.name+".new", w.name); err != nil {
		return err
	}
	return w.r.SyncDir(path.Dir(w.name))
}

// Abort discards the catalogue; after Commit it does nothing.
func (w *CatalogueWriter) Abort() error {
	if w.done {
		return nil
	}
	w.done = true
	err := w.f.Close()
	if rerr := w.r.Remove(w.name + ".new"); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}
