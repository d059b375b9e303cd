package scan

import (
	"errors"
	"hash/crc32"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// A catalogue is a private file that never leaves its machine: the publisher's
// stat cache, and a site's record of what was applied. Losing it costs time,
// never data. It is written and read as a stream, in path order.
//
//	"nfcatl" version           8 bytes, as frame has it
//	blocks                     length (4), CRC (4), records of about 64 KiB
//	header                     CBOR
//	length (4) CRC (4) "nfcatend"   the last 16 bytes, of the header
//
// Numbers are little endian; a CRC is CRC-32C over the block's ordinal (8
// bytes, all ones for the header), then its bytes. A record is, in varints, the number of bytes its path
// shares with the one before in the block, the rest's length, the rest, kind,
// stat, Checked, the entry's length and the entry.

const (
	catalogueKind    = "catl"
	catalogueVersion = 2
	catalogueEnd     = "nfcatend"
	trailerSize      = 16
	blockHead        = 8
	blockTarget      = 64 << 10
	maxRecord        = 1 << 20 // bytes; twice the longest path with the most references
	maxBlock         = blockTarget + maxRecord
	maxHeader        = 64 << 10
	headerOrdinal    = 1<<64 - 1
)

// ErrCorrupt reports that a catalogue is truncated, damaged, or of another version. The remedy is to rebuild it.
var ErrCorrupt = errors.New("the catalogue is damaged")

// Header describes a catalogue. It takes at most 64 KiB in CBOR.
type Header struct {
	_        struct{} `cbor:",toarray"`
	Repo     [16]byte // the repository's id
	Channel  string
	Number   trust.ReleaseNumber // of the release
	Release  trust.ReleaseDigest
	Totals   manifest.Totals // of the release
	Tree     digest.Digest   // of the release
	Complete bool            // every file of the release matches the release
	Lost     uint64          // the index root's count of forgotten packs when it was made
	Made     int64           // ns since 1970 by this machine's clock at the start of the walk; a file changed later is not proven
	Rules    string          // the caller's own: excluded paths, and the treatment of links
	Volume   string          // the mount point that holds the walked folder
	Mounts   []string        // folders below it at which another volume was mounted, sorted
	Unowned  bool            // releases may have put files there that the catalogue does not have
	Records  uint64          // set by Commit
}

// Record is one file or folder of a catalogue. Records that a reader has
// returned stay valid; several hundred of them share one memory block.
type Record struct {
	Path    string
	Kind    Kind
	Stat    Stat
	Checked int64  // Unix seconds when its bytes were last read and matched; 0: never
	Raw     []byte // the entry in this file's own form, see Entry; copy it unchanged
}

// NewRecord makes a record of an entry.
func NewRecord(e *manifest.Entry, st Stat, checked int64) Record {
	kind := File
	if e.Kind == manifest.Dir {
		kind = Dir
	}
	return Record{Path: e.Path, Kind: kind, Stat: st, Checked: checked, Raw: encodeEntry(e)}
}

// Entry decodes the record's entry. Errors are [ErrCorrupt].
func (r *Record) Entry() (*manifest.Entry, error) { return decodeEntry(r.Path, r.Raw) }

func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // computed once by the library

func blockChecksum(t *crc32.Table, ordinal uint64, data []byte) uint32 {
	var head [8]byte
	for i := range head {
		head[i] = byte(ordinal >> (8 * i))
	}
	return crc32.Update(crc32.Checksum(head[:], t), t, data)
}
