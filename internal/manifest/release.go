package manifest

import (
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

const (
	// ReleaseKind and ReleaseVersion identify a release in its header.
	ReleaseKind    = "rels"
	ReleaseVersion = 1
	// MaxRelease bounds a release object in bytes.
	MaxRelease = 16 << 20
	// MaxEntries bounds the files and folders of a release.
	MaxEntries = 1 << 26
	// MaxBytes bounds the sum of a release's file sizes.
	MaxBytes = 1 << 60
	// MaxNote bounds a release's note in bytes.
	MaxNote = 1 << 10

	// envelope bounds the bytes that signing and sealing add to a payload.
	envelope = 1 << 10
)

// Totals count the content of a release.
type Totals struct {
	_     struct{} `cbor:",toarray"`
	Files int64    `json:"files"`
	Dirs  int64    `json:"dirs"`
	Bytes int64    `json:"bytes"` // sum of the files' sizes
}

// PageRef names a manifest page.
type PageRef struct {
	_       struct{}      `cbor:",toarray"`
	ID      digest.Digest `json:"id"`
	Entries int64         `json:"entries"`
	First   string        `json:"first"` // path of its first entry
}

// Release is the payload of a release object, which signs it together with
// the repository, the channel and the release's number. It names no segment
// and never expires.
type Release struct {
	_        struct{}            `cbor:",toarray"`
	Channel  string              `json:"channel"`
	Parent   trust.ReleaseDigest `json:"parent_digest"` // SHA-256 of the release object before; zero for the first
	Created  int64               `json:"created"`
	Note     string              `json:"note"` // "" or, for a rollback, which release it brings back; at most 1 KiB
	Portable bool                `json:"portable"`
	Totals   Totals              `json:"totals"`
	Tree     digest.Digest       `json:"tree"` // tree digest, see TreeHash
	Pages    []PageRef           `json:"pages"`
}

// Validate checks the release for internal consistency.
func (r *Release) Validate() error {
	if err := CheckChannel(r.Channel); err != nil {
		return fmt.Errorf("release: %w: %w", frame.ErrDamaged, err)
	}
	t := r.Totals
	if t.Files < 0 || t.Dirs < 0 || t.Files > MaxEntries || t.Dirs > MaxEntries-t.Files {
		return fmt.Errorf("release: %d files and %d folders, at most %d together are supported: %w", t.Files, t.Dirs, MaxEntries, frame.ErrDamaged)
	}
	if t.Bytes < 0 || t.Bytes > MaxBytes || len(r.Note) > MaxNote || r.Tree.IsZero() {
		return fmt.Errorf("release: bytes, note or tree digest out of bounds: %w", frame.ErrDamaged)
	}
	var n int64
	for i, p := range r.Pages {
		if p.Entries < 1 || p.Entries > MaxPageEntries || p.ID.IsZero() {
			return fmt.Errorf("release: page %d of %d entries: %w", i, p.Entries, frame.ErrDamaged)
		}
		if err := CheckPath(p.First, r.Portable); err != nil {
			return fmt.Errorf("release: page %d: %w: %w", i, frame.ErrDamaged, err)
		}
		if i > 0 && ComparePaths(r.Pages[i-1].First, p.First) >= 0 {
			return fmt.Errorf("release: pages out of order: %w", frame.ErrDamaged)
		}
		n += p.Entries
	}
	if n != t.Files+t.Dirs {
		return fmt.Errorf("release: pages hold %d entries, totals say %d: %w", n, t.Files+t.Dirs, frame.ErrDamaged)
	}
	return nil
}

// EncodeRelease returns the payload of a release object.
func EncodeRelease(r *Release) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	b, err := frame.Marshal(r)
	if err == nil && len(b) > MaxRelease-envelope {
		return nil, fmt.Errorf("release of %d manifest pages takes %d bytes, at most %d are supported: split the channel", len(r.Pages), len(b), MaxRelease-envelope)
	}
	return b, err
}

// DecodeRelease reads the payload of a release object.
func DecodeRelease(b []byte) (*Release, error) {
	if len(b) > MaxRelease-envelope {
		return nil, fmt.Errorf("release of %d bytes, at most %d are supported: %w", len(b), MaxRelease-envelope, frame.ErrDamaged)
	}
	var r Release
	if err := frame.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &r, nil
}

// NameError reports an invalid channel name.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("channel name %q: want 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit", e.Name)
}

// CheckChannel returns a *NameError unless name is 1 to 64 of a-z, 0-9, '-'
// and '_', starting with a letter or digit.
func CheckChannel(name string) error {
	ok := len(name) >= 1 && len(name) <= 64 && name[0] != '-' && name[0] != '_'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return &NameError{name}
	}
	return nil
}
