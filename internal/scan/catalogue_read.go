package scan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
)

// CatalogueReader streams a catalogue. It is for one goroutine.
type CatalogueReader struct {
	f      *os.File
	in     *bufio.Reader
	table  *crc32.Table
	header Header
	left   int64 // bytes of blocks not yet read
	block  uint64
	count  uint64
	recs   []Record // records of the current block
	next   int
	last   string
	err    error
}

// OpenCatalogue opens a catalogue and reads its header. A missing file is
// fs.ErrNotExist, a damaged one [ErrCorrupt].
func OpenCatalogue(r *durable.Root, name string) (*CatalogueReader, error) {
	f, err := r.Open(name)
	if durable.IsBlocked(err) {
		return nil, corruptError("%v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read catalogue: %w", err)
	}
	c := &CatalogueReader{f: f, table: crcTable()}
	if err := c.checkEnds(); err != nil {
		return nil, errors.Join(fmt.Errorf("read catalogue %q: %w", name, err), f.Close())
	}
	return c, nil
}

func corruptError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// checkEnds checks both ends of the file; a truncated file lacks its end.
func (c *CatalogueReader) checkEnds() error {
	info, err := c.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size < frame.HeaderSize+trailerSize {
		return corruptError("%d bytes are too short", size)
	}
	var head [frame.HeaderSize]byte
	var end [trailerSize]byte
	if _, err := c.f.ReadAt(head[:], 0); err != nil {
		return err
	}
	if err := frame.CheckHeader(catalogueKind, catalogueVersion, head[:]); err != nil {
		return corruptError("%v", err)
	}
	if _, err := c.f.ReadAt(end[:], size-trailerSize); err != nil {
		return err
	}
	if string(end[8:]) != catalogueEnd {
		return corruptError("it was cut short")
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	at := size - trailerSize - n
	if n > maxHeader || at < frame.HeaderSize {
		return corruptError("a header of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := c.f.ReadAt(body, at); err != nil {
		return err
	}
	if blockChecksum(c.table, headerOrdinal, body) != binary.LittleEndian.Uint32(end[4:]) {
		return corruptError("its header does not match its checksum")
	}
	if err := frame.Unmarshal(body, &c.header); err != nil {
		return corruptError("%v", err)
	}
	if len(c.header.Mounts) == 0 {
		c.header.Mounts = nil // keep nil if the writer had nil
	}
	c.left = at - frame.HeaderSize
	c.in = bufio.NewReaderSize(io.NewSectionReader(c.f, frame.HeaderSize, c.left), 256<<10)
	return nil
}

// Header returns the catalogue's header.
func (c *CatalogueReader) Header() Header { return c.header }

// Close closes the file.
func (c *CatalogueReader) Close() error { return c.f.Close() }

// Next returns the next record in path order, and io.EOF itself after the
// last. A damaged block is [ErrCorrupt]; none of its records is returned, and
// every later call returns the same error.
func (c *CatalogueReader) Next() (*Record, error) {
	for c.next == len(c.recs) {
		if c.err == nil {
			c.err = c.readBlock()
		}
		if c.err != nil {
			return nil, c.err
		}
	}
	c.next++
	return &c.recs[c.next-1], nil
}

// readBlock reads one block.
func (c *CatalogueReader) readBlock() error {
	if c.left == 0 {
		if c.count != c.header.Records {
			return corruptError("it has %d records, its header says %d", c.count, c.header.Records)
		}
		return io.EOF
	}
	var head [blockHead]byte
	if c.left < blockHead {
		return corruptError("block %d is cut short", c.block)
	}
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return fmt.Errorf("read catalogue: %w", err)
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	c.left -= blockHead
	if n == 0 || n > maxBlock || n > c.left {
		return corruptError("block %d has %d bytes", c.block, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return fmt.Errorf("read catalogue: %w", err)
	}
	c.left -= n
	if blockChecksum(c.table, c.block, body) != binary.LittleEndian.Uint32(head[4:]) {
		return corruptError("block %d does not match its checksum", c.block)
	}
	if err := c.parseBlock(body); err != nil {
		return err
	}
	c.block++
	c.count += uint64(len(c.recs))
	return nil
}

// parseBlock decodes a block. It builds all paths in one allocation, and the
// records' entries alias the block.
func (c *CatalogueReader) parseBlock(body []byte) error {
	type span struct{ start, end int }
	var (
		cur   = cursor{b: body}
		recs  = make([]Record, 0, max(16, cap(c.recs)))
		text  = make([]byte, 0, 2*len(body)/3)
		spans = make([]span, 0, cap(recs))
		prev  span
	)
	for len(cur.b) > 0 {
		shared, rest := cur.readUint(), cur.takeBytes(cur.readUint())
		if shared > uint64(prev.end-prev.start) {
			cur.markBad()
		}
		if cur.bad {
			break
		}
		at := span{start: len(text)}
		text = append(text, text[prev.start:prev.start+int(shared)]...)
		text = append(text, rest...)
		at.end = len(text)
		prev = at
		spans = append(spans, at)
		rec := Record{Kind: Kind(cur.readByte())}
		rec.Stat = Stat{Size: cur.readInt(), MTime: cur.readInt(), CTime: cur.readInt(), ID: cur.readUint(), Mode: uint16(cur.readUint())}
		rec.Checked = cur.readInt()
		rec.Raw = cur.takeBytes(cur.readUint())
		recs = append(recs, rec)
	}
	if cur.bad {
		return corruptError("block %d does not parse", c.block)
	}
	all := string(text)
	for i, s := range spans {
		recs[i].Path = all[s.start:s.end]
		if recs[i].Path == "" || (c.last != "" && manifest.ComparePaths(recs[i].Path, c.last) <= 0) {
			return corruptError("%q does not come after %q in path order", recs[i].Path, c.last)
		}
		c.last = recs[i].Path
	}
	c.recs, c.next = recs, 0
	return nil
}
