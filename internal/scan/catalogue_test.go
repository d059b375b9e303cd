package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

func root(t testing.TB, o durable.Options) *durable.Root {
	t.Helper()
	r, err := durable.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// sample makes n records; the digits in their paths keep them in path order.
func sample(n int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		e := manifest.Entry{Path: fmt.Sprintf("drivers/vendor-%04d/package/file-%07d.sys", i/1000, i), Size: int64(i) + 1, MTime: 1600000000e9 + int64(i), Mode: 0o644}
		e.Digest = digest.Of([]byte(e.Path))
		st := Stat{Size: e.Size, MTime: e.MTime, CTime: e.MTime + 12345, ID: uint64(i) + 1e6, Mode: 0o644}
		recs[i] = NewRecord(&e, st, 1700000000)
	}
	return recs
}

func write(t testing.TB, r *durable.Root, h Header, recs []Record) {
	t.Helper()
	w, err := CreateCatalogue(r, "cat")
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		if err := w.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(h); err != nil {
		t.Fatal(err)
	}
}

func readAll(r *durable.Root) (Header, []Record, error) {
	c, err := OpenCatalogue(r, "cat")
	if err != nil {
		return Header{}, nil, err
	}
	defer func() { _ = c.Close() }()
	var recs []Record
	for {
		rec, err := c.Next()
		if err == io.EOF {
			return c.Header(), recs, nil
		}
		if err != nil {
			if _, again := c.Next(); again != err {
				return Header{}, nil, fmt.Errorf("after %w, another answer: %w", err, again)
			}
			return Header{}, nil, err
		}
		recs = append(recs, *rec)
	}
}

var ignore = cmpopts.IgnoreUnexported(Header{}, manifest.Entry{}, chunk.Ref{}, manifest.ListRef{})

func TestCatalogueRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5000} {
		r := root(t, durable.Options{})
		h := Header{Repo: [16]byte{1, 2}, Channel: "driver", Number: 7, Release: trust.ReleaseDigest(digest.Of(nil)), Complete: true, Lost: 3, Made: 99, Rules: "x"}
		want := sample(n)
		write(t, r, h, want)
		got, recs, err := readAll(r)
		if err != nil {
			t.Fatal(err)
		}
		h.Records = uint64(n)
		if d := cmp.Diff(h, got, ignore); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(want, recs, cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
		if list, err := r.ReadDir("."); err != nil || len(list) != 1 {
			t.Errorf("%v %v", list, err)
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) (d digest.Digest) {
			copy(d[:], rapid.SliceOfN(rapid.Byte(), digest.Size, digest.Size).Draw(t, "id"))
			return d
		})
		e := &manifest.Entry{Path: "p", Kind: manifest.Kind(rapid.IntRange(0, 1).Draw(t, "kind")), Size: rapid.Int64Min(0).Draw(t, "size"),
			MTime: rapid.Int64().Draw(t, "mtime"), Mode: uint16(rapid.IntRange(0, 0o777).Draw(t, "mode")), Digest: id.Draw(t, "digest")}
		for range rapid.IntRange(0, 5).Draw(t, "chunks") {
			e.Chunks = append(e.Chunks, chunk.Ref{ID: id.Draw(t, "c"), Size: rapid.Int64Min(0).Draw(t, "n")})
		}
		for range rapid.IntRange(0, 5).Draw(t, "lists") {
			e.Lists = append(e.Lists, manifest.ListRef{ID: id.Draw(t, "l"), Size: rapid.Int64Min(0).Draw(t, "n")})
		}
		rec := NewRecord(e, Stat{}, 0)
		got, err := rec.Entry()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got, ignore); d != "" {
			t.Fatal(d)
		}
		rec.Raw = rec.Raw[:rapid.IntRange(0, len(rec.Raw)-1).Draw(t, "cut")]
		if _, err := rec.Entry(); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut short: %v", err)
		}
	})
}

// The encoding of an entry is our own: add every new field of manifest.Entry
// here.
func TestEntryFormHasEveryField(t *testing.T) {
	for typ, want := range map[reflect.Type]int{reflect.TypeFor[manifest.Entry](): 9, reflect.TypeFor[chunk.Ref](): 3, reflect.TypeFor[manifest.ListRef](): 3} {
		if typ.NumField() != want {
			t.Errorf("%v has %d fields, this form knows %d: extend it and catalogueVersion", typ, typ.NumField(), want)
		}
	}
}

// If any byte is changed or the file is truncated anywhere, the reader must
// report it and return no wrong record.
func TestCatalogueDamage(t *testing.T) {
	r := root(t, durable.Options{})
	want := sample(1500)
	write(t, r, Header{Channel: "c", Number: 1}, want)
	file := filepath.Join(r.Dir(), "cat")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readAll(r); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(good); at += 1 + len(good)/211 {
		b := bytes.Clone(good)
		b[at] ^= 0x20
		try(fmt.Sprintf("byte %d changed", at), b)
		try(fmt.Sprintf("cut at %d", at), good[:at])
	}
	for at := len(good) - 200; at < len(good); at++ {
		b := bytes.Clone(good)
		b[at] ^= 1
		try(fmt.Sprintf("byte %d changed", at), b)
	}
	try("a byte more", append(bytes.Clone(good), 0))
	// A whole block missing: its neighbours' checksums are right.
	size := int(binary.LittleEndian.Uint32(good[8:]))
	last := 8
	for at := 8; binary.LittleEndian.Uint32(good[at:]) >= blockTarget; at += 8 + int(binary.LittleEndian.Uint32(good[at:])) {
		last = at + 8 + int(binary.LittleEndian.Uint32(good[at:]))
	}
	end := last + 8 + int(binary.LittleEndian.Uint32(good[last:]))
	try("the last block missing", append(bytes.Clone(good[:last]), good[end:]...))
	try("a block missing", append(bytes.Clone(good[:8]), good[8+8+size:]...))
	b := bytes.Clone(good)
	b[7] = catalogueVersion + 1
	try("a newer version", b)
}

func TestCatalogueRefusesDisorder(t *testing.T) {
	r := root(t, durable.Options{})
	w, err := CreateCatalogue(r, "cat")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "a/b", "a!"} {
		if err := w.Add(Record{Path: p, Kind: File}); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"a!", "a/c", ""} {
		if err := w.Add(Record{Path: p, Kind: File}); err == nil {
			t.Errorf("%q was taken after a!", p)
		}
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if _, err := OpenCatalogue(r, "cat"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Abort: %v", err)
	}
}

type failAt struct {
	kind durable.OpKind
	err  error
}

func (f *failAt) Before(op durable.Op) error {
	if op.Kind == f.kind {
		return f.err
	}
	return nil
}

// Whichever operation fails, the existing catalogue stays.
func TestCatalogueCommitIsWhole(t *testing.T) {
	o := &failAt{err: errors.New("disk full")}
	r := root(t, durable.Options{Observer: o})
	write(t, r, Header{Number: 1}, sample(10))
	for _, kind := range []durable.OpKind{durable.Create, durable.Write, durable.SyncFile, durable.Rename} {
		o.kind = kind
		w, err := CreateCatalogue(r, "cat")
		if err == nil {
			err = w.Commit(Header{Number: 2})
		}
		if !errors.Is(err, o.err) {
			t.Errorf("%v: %v", kind, err)
		}
		o.kind = 0
		if h, recs, err := readAll(r); err != nil || h.Number != 1 || len(recs) != 10 {
			t.Errorf("%v: %v %d %v", kind, h.Number, len(recs), err)
		}
	}
}

func BenchmarkCatalogue(b *testing.B) {
	recs := sample(1_000_000)
	r := root(b, durable.Options{})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			write(b, r, Header{}, recs)
		}
	})
	recs = nil
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := OpenCatalogue(r, "cat")
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = c.Next()
			}
			if err != io.EOF {
				b.Fatal(err)
			}
			_ = c.Close()
		}
	})
	b.Run("entries", func(b *testing.B) {
		rec := sample(1)[0]
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rec.Entry(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
