package verify

import (
	"crypto/sha256"
	"encoding"
	"hash"
	"io"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
)

// Part is the saved progress of reading one large file.
type Part struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest"` // of the release's file
	Size   int64         `json:"size"`
	MTime  int64         `json:"mtime"` // ns since 1970
	Offset int64         `json:"offset"`
	State  []byte        `json:"state"` // of the hash over the bytes before Offset
}

const (
	// partial is the minimum size in bytes of a file whose progress is saved.
	partial = 64 << 20
	// partEvery is the number of bytes read between two saves.
	partEvery = 32 << 20
)

// startFile starts reading a file. It resumes at a saved Part if the file is unchanged since.
func (r *run) startFile(f io.Seeker, e *manifest.Entry, info fs.FileInfo) (h hash.Hash, offset int64, err error) {
	for i := range r.o.Parts {
		p := &r.o.Parts[i]
		if p.Path != e.Path || p.Digest != e.Digest || p.Size != info.Size() || p.MTime != durable.Nanoseconds(info.ModTime()) || p.Offset > p.Size {
			continue
		}
		h = sha256.New()
		if u, ok := h.(encoding.BinaryUnmarshaler); !ok || u.UnmarshalBinary(p.State) != nil {
			break
		}
		_, err = f.Seek(p.Offset, io.SeekStart)
		return h, p.Offset, err
	}
	return sha256.New(), 0, nil
}

// keepPart passes the progress of a large file to Options.Keep.
func (r *run) keepPart(e *manifest.Entry, info fs.FileInfo, h hash.Hash, offset int64) {
	if r.o.Keep == nil || info.Size() < partial {
		return
	}
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return
	}
	if state, err := m.MarshalBinary(); err == nil {
		r.o.Keep(Part{Path: e.Path, Digest: e.Digest, Size: info.Size(), MTime: durable.Nanoseconds(info.ModTime()), Offset: offset, State: state})
	}
}
