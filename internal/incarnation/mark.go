package incarnation

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"nightferry/internal/bucket"
	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

// Key is the object's key. Kind and Version open the object. See docs/format/incarnation.md.
const (
	Key     = "incarnation"
	Kind    = "incn"
	Version = 1

	maxMark    = 1 << 10
	maxNumber  = 1<<37 - 1 // wire bounds revisions by 1<<62
	holderSize = 16
)

// mark is the object: the payload, and how it was read.
type mark struct {
	_      struct{} `cbor:",toarray"`
	Holder [holderSize]byte
	At     int64 // Unix seconds

	number uint64 // of the signature's subject; 0: there is no object that counts
	etag   string // of the object in the bucket; empty: there is none
	raw    []byte
}

func signMark(b *Bucket, number uint64, m *mark) ([]byte, error) {
	payload, err := frame.Marshal(m)
	if err != nil {
		return nil, err
	}
	return trust.Sign(b.Key, subject(b, number), payload)
}

func subject(b *Bucket, number uint64) trust.Subject {
	return trust.Subject{Kind: Kind, Version: Version, Repo: b.Repo, Number: number}
}

// readTries is how often a damaged object is read: the line may have damaged it.
const readTries = 3

// readMark reads the object. A missing, damaged or untrusted object has number 0. An object of a
// newer program is an error.
func readMark(ctx context.Context, b *Bucket) (m *mark, err error) {
	for range readTries {
		m = &mark{}
		if m.raw, m.etag, err = getObject(ctx, b.Store); errors.Is(err, fs.ErrNotExist) {
			return &mark{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err = m.open(b); err == nil {
			return m, nil
		}
	}
	if errors.Is(err, frame.ErrDamaged) || errors.Is(err, trust.ErrUntrusted) {
		return &mark{etag: m.etag}, nil
	}
	return nil, err
}

func getObject(ctx context.Context, s bucket.Store) (raw []byte, etag string, err error) {
	body, info, err := s.Get(ctx, Key, 0, -1)
	if err != nil {
		return nil, "", err
	}
	raw, err = io.ReadAll(io.LimitReader(body, maxMark+1))
	return raw, info.ETag, errors.Join(err, body.Close())
}

// open checks the signature of m.raw and decodes it. The key may be retired: its numbers still
// count.
func (m *mark) open(b *Bucket) error {
	s, err := trust.Parse(Kind, Version, maxMark, m.raw)
	if err != nil {
		return err
	}
	if err := s.Verify(subject(b, s.Subject.Number)); err != nil {
		return err
	}
	if err := b.Doc.Allows(s.Signer, trust.Releases); err != nil {
		return err
	}
	if err := frame.Unmarshal(s.Payload, m); err != nil {
		return err
	}
	m.number = s.Subject.Number
	return nil
}
