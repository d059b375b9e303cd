package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Probe returns an error for each feature that two concurrent writers need and the store lacks: conditional writes
// both ways, checked uploads, ranged reads, and a clock. It uses an existing object of at least four bytes. It writes only that
// object's own bytes, and only if the store ignores a condition or a checksum. Errors are joined; each names its remedy.
func Probe(ctx context.Context, s Store, key string) error {
	body, info, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	var lacks []error
	lack := func(what string) {
		lacks = append(lacks, &Error{Op: "probe", Key: key, Kind: KindOther, Err: errors.New(what), Hint: storeHint})
	}
	for _, c := range []struct {
		cond Cond
		what string
	}{
		{Cond{Absent: true}, "the store ignores If-None-Match: of two pushes at once both would publish"},
		{Cond{ETag: `"00000000000000000000000000000000"`}, "the store ignores If-Match: of two pushes at once both would publish"},
	} {
		if _, err := s.Put(ctx, key, Bytes(b), c.cond); err == nil {
			lack(c.what)
		} else if !errors.Is(err, fs.ErrExist) {
			lacks = append(lacks, err)
		}
	}
	wrong := Bytes(b)
	wrong.SHA256[0] ^= 1
	switch _, err := s.Put(expectDamage(ctx), key, wrong, Cond{ETag: info.ETag}); {
	case err == nil:
		lack("the store accepts an upload that does not match its checksum: a line that changes bytes would damage the stored objects")
	case !slices.Contains([]Kind{KindIntegrity, KindDenied, KindOther}, KindOf(err)): // the right checksum was not refused in these ways
		lacks = append(lacks, err)
	}
	if err := probeRange(ctx, s, key, b); err != nil {
		lacks = append(lacks, err)
	}
	if info.Date.IsZero() {
		lack("the store's answer has no usable time (Date), which grace periods are measured with")
	}
	return errors.Join(lacks...)
}

type damageKey struct{}

// expectDamage marks an upload whose checksum is wrong on purpose, so that it is not tried again.
func expectDamage(ctx context.Context) context.Context {
	return context.WithValue(ctx, damageKey{}, true)
}

func probeRange(ctx context.Context, s Store, key string, whole []byte) error {
	body, info, err := s.Get(ctx, key, 1, 2)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, whole[1:3]) || info.Size != int64(len(whole)) {
		return &Error{Op: "probe", Key: key, Kind: KindIntegrity, Err: fmt.Errorf("2 bytes from offset 1 of %d came as %d bytes of %d", len(whole), len(got), info.Size), Hint: storeHint}
	}
	return nil
}
