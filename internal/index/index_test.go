package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/pack"
	"nightferry/internal/seal"
)

var equal = []cmp.Option{cmpopts.EquateEmpty(), cmp.AllowUnexported(Footer{}, Page{}, Pack{}, Root{}, SegmentRef{}, Condemned{})}

func keysOf(t testing.TB) *seal.Keys {
	t.Helper()
	k, err := seal.NewKeys(bytes.Repeat([]byte{1}, seal.KeySize), [16]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func both(t *testing.T, fn func(t *testing.T, k *seal.Keys)) {
	t.Run("plain", func(t *testing.T) { fn(t, nil) })
	t.Run("sealed", func(t *testing.T) { fn(t, keysOf(t)) })
}

func id(i int) digest.Digest { return digest.Of(fmt.Append(nil, i)) }

func packsOf(k *seal.Keys, n int) (out []Pack) {
	for i := range n {
		out = append(out, Pack{Digest: id(-i - 1), Salt: k.NewSalt(), Size: pack.MaxSize})
	}
	return out
}

func recordsOf(n, packs int) (out []Record) {
	for i := range n {
		out = append(out, Record{ID: id(i), Pack: uint32(i % packs), At: pack.Location{Block: uint32(pack.PreludeSize + i), Stored: 100, Offset: uint32(i % 1000), Size: uint32(1 + i%5000)}})
	}
	slices.SortFunc(out, func(a, b Record) int { return a.ID.Compare(b.ID) })
	return out
}

// open reads a segment as the root refers to it.
func open(t testing.TB, k *seal.Keys, b []byte, ref SegmentRef) (*Footer, *seal.Object) {
	t.Helper()
	salt, err := pack.ParsePrelude(Kind, Version, b)
	if err != nil || !bytes.Equal(salt, ref.Salt) {
		t.Fatalf("prelude: %v", err)
	}
	obj, err := k.Object(Kind, ref.Salt)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFooter(obj, b[ref.Footer:], ref.Footer)
	if err != nil {
		t.Fatal(err)
	}
	return f, obj
}

func page(t testing.TB, f *Footer, obj *seal.Object, b []byte, i int) Records {
	t.Helper()
	off, n := f.PageRange(i, obj.Overhead())
	r, err := f.OpenPage(obj, i, b[off:off+n])
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSegmentRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		for _, n := range []int{0, 1, PageRecords - 1, PageRecords, PageRecords + 1, 3*PageRecords + 5} {
			packs := packsOf(k, 3)
			want := recordsOf(n, 3)
			b, ref, err := Build(k, packs, want)
			if err != nil {
				t.Fatal(err)
			}
			if ref.Digest != digest.Of(b) || ref.Size != int64(len(b)) || ref.Records != uint64(n) || ref.FooterDigest != digest.Of(b[ref.Footer:]) {
				t.Errorf("%d records: the reference %+v does not fit", n, ref)
			}
			if err := (&Root{Segments: []SegmentRef{ref}}).Validate(); err != nil {
				t.Errorf("%d records: %v", n, err)
			}
			f, obj := open(t, k, b, ref)
			if d := cmp.Diff(packs, f.Packs, equal...); d != "" {
				t.Error(d)
			}
			var got []Record
			for i := range f.Pages {
				r := page(t, f, obj, b, i)
				for j := range r.Len() {
					got = append(got, r.At(j))
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestFind(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		all := recordsOf(3*PageRecords+100, 2)
		var in, out []Record
		for i, r := range all {
			if i%2 == 0 {
				in = append(in, r)
			} else {
				out = append(out, r)
			}
		}
		b, ref, err := Build(k, packsOf(k, 2), in)
		if err != nil {
			t.Fatal(err)
		}
		f, obj := open(t, k, b, ref)
		pages := make([]Records, len(f.Pages))
		for i := range pages {
			pages[i] = page(t, f, obj, b, i)
		}
		find := func(id digest.Digest) (Record, bool) {
			p := f.Find(id)
			if p < 0 {
				return Record{}, false
			}
			return pages[p].Find(id)
		}
		for _, want := range in {
			if got, ok := find(want.ID); !ok || got != want {
				t.Fatalf("%s: found %v, %+v", want.ID.Short(), ok, got)
			}
		}
		for _, r := range append(out, Record{}, Record{ID: digest.Digest(bytes.Repeat([]byte{0xff}, digest.Size))}) {
			if got, ok := find(r.ID); ok {
				t.Fatalf("%s: found %+v, it was not written", r.ID.Short(), got)
			}
		}
		if (&Footer{}).Find(id(1)) != -1 {
			t.Error("an empty segment has a page")
		}
	})
}

func TestOpenPageRefuses(t *testing.T) {
	both(t, func(t *testing.T, k *seal.Keys) {
		b, ref, err := Build(k, packsOf(k, 1), recordsOf(PageRecords+10, 1))
		if err != nil {
			t.Fatal(err)
		}
		f, obj := open(t, k, b, ref)
		off, n := f.PageRange(1, obj.Overhead())
		good := b[off : off+n]
		bad := bytes.Clone(good)
		bad[40] ^= 1
		off0, _ := f.PageRange(0, obj.Overhead())
		for name, c := range map[string][]byte{"altered": bad, "cut short": good[:n-1], "longer": b[off : off+n+1], "another page": b[off0 : off0+n], "nothing": nil} {
			if _, err := f.OpenPage(obj, 1, c); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("%s: error is %v", name, err)
			}
		}
		if k != nil {
			f.Pages[1].Digest = digest.Of(bad)
			if _, err := f.OpenPage(obj, 1, bad); !errors.Is(err, seal.ErrOpen) {
				t.Errorf("altered, and the footer says so: %v", err)
			}
		}
	})
}

// TestOpenPageChecksRecords opens pages that match the footer but whose
// records point outside of a pack: the index is not signed.
func TestOpenPageChecksRecords(t *testing.T) {
	good := Record{ID: id(1), At: pack.Location{Block: pack.PreludeSize, Stored: 10, Offset: 5, Size: 5}}
	records := func(rs ...Record) (b []byte) {
		for _, r := range rs {
			b = r.appendTo(b)
		}
		return b
	}
	change := func(fn func(*Record)) []byte {
		r := good
		fn(&r)
		return records(r)
	}
	open := func(b []byte, f Footer) error {
		f.Records, f.Packs = uint64(len(b)/RecordSize), []Pack{{Size: 1 << 20}}
		f.Pages = append([]Page{{First: good.ID, Digest: digest.Of(b)}}, f.Pages...)
		if len(f.Pages) > 1 {
			f.Records = PageRecords + 1
		}
		_, err := f.OpenPage(nil, 0, b)
		return err
	}
	if err := open(records(good), Footer{}); err != nil {
		t.Fatal(err)
	}
	larger, smaller := good, good
	larger.ID[0], smaller.ID[0] = 0xff, 0
	for name, b := range map[string][]byte{
		"another pack":           change(func(r *Record) { r.Pack = 1 }),
		"before the first block": change(func(r *Record) { r.At.Block-- }),
		"no stored bytes":        change(func(r *Record) { r.At.Stored = 0 }),
		"too many stored bytes":  change(func(r *Record) { r.At.Stored = pack.MaxStored + 1 }),
		"past any pack":          change(func(r *Record) { r.At.Block = pack.MaxSize }),
		"past this pack":         change(func(r *Record) { r.At.Block = 1<<20 - 9 }),
		"a wrap of the end":      change(func(r *Record) { r.At.Block = 1<<32 - 1 }),
		"no bytes":               change(func(r *Record) { r.At.Size = 0 }),
		"past the block":         change(func(r *Record) { r.At.Offset = pack.MaxBlock }),
		"a wrap of the offset":   change(func(r *Record) { r.At.Offset = 1<<32 - 1 }),
		"another first id":       change(func(r *Record) { r.ID = id(2) }),
		"an id twice":            records(good, good),
		"out of order":           records(good, smaller),
	} {
		if err := open(b, Footer{}); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	full := make([]Record, PageRecords)
	for i := range full {
		full[i] = good
		binary.BigEndian.PutUint16(full[i].ID[30:], uint16(i))
		full[i].ID[0] = good.ID[0]
	}
	full[0].ID = good.ID
	for i := range full {
		full[i].ID = good.ID
		full[i].ID[29], full[i].ID[30], full[i].ID[31] = 0, byte(i>>8), byte(i)
	}
	first := full[0].ID
	b := records(full...)
	f := Footer{Records: PageRecords + 1, Packs: []Pack{{Size: 1 << 20}}, Pages: []Page{{First: first, Digest: digest.Of(b)}, {First: larger.ID}}}
	if _, err := f.OpenPage(nil, 0, b); err != nil {
		t.Fatalf("a full page: %v", err)
	}
	f.Pages[1].First = full[PageRecords-1].ID
	if _, err := f.OpenPage(nil, 0, b); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("a page that reaches into the next: %v", err)
	}
}

func TestParseFooterRefuses(t *testing.T) {
	base := func() Footer {
		return Footer{Records: PageRecords + 1, Pages: []Page{{First: digest.Digest{1}}, {First: digest.Digest{2}}}, Packs: []Pack{{Size: 1 << 20, Salt: make([]byte, seal.SaltSize)}}}
	}
	for name, change := range map[string]func(*Footer){
		"too many records":       func(f *Footer) { f.Records = MaxRecords + 1 },
		"a page too few":         func(f *Footer) { f.Records = 2*PageRecords + 1 },
		"a page too many":        func(f *Footer) { f.Records = PageRecords },
		"pages out of order":     func(f *Footer) { f.Pages[1].First = f.Pages[0].First },
		"a salt of another size": func(f *Footer) { f.Packs[0].Salt = f.Packs[0].Salt[1:] },
		"a pack too large":       func(f *Footer) { f.Packs[0].Size = pack.MaxSize + 1 },
		"a pack of nothing":      func(f *Footer) { f.Packs[0].Size = 0 },
	} {
		f := base()
		change(&f)
		b, err := frame.Marshal(&f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFooter(nil, b, 0); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	f := base()
	b, err := frame.Marshal(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseFooter(nil, b, 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][]byte{"cut short": b[:len(b)-1], "a byte more": append(bytes.Clone(b), 0), "too long": make([]byte, MaxFooter+1), "nothing": nil} {
		if _, err := ParseFooter(nil, c, 0); !errors.Is(err, frame.ErrDamaged) || name == "too long" && !strings.Contains(err.Error(), fmt.Sprint(MaxFooter)) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	obj, err := keysOf(t).Object(Kind, make([]byte, seal.SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	sealed := obj.Seal(nil, b, 48)
	if _, err := ParseFooter(obj, sealed, 49); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("at another offset: %v", err)
	}
	many := Footer{Packs: slices.Repeat([]Pack{{Size: pack.MaxSize}}, MaxPacks+1)}
	if err := many.Validate(); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("too many packs: %v", err)
	}
	many = Footer{Records: MaxRecords + 1, Pages: make([]Page, MaxRecords/PageRecords+1)}
	for i := range many.Pages {
		binary.BigEndian.PutUint32(many.Pages[i].First[:], uint32(i))
	}
	if err := many.Validate(); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("too many records: %v", err)
	}
	if err := (&Footer{Packs: []Pack{{Size: pack.MaxSize + 1}}}).Validate(); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("a pack too large: %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	good := recordsOf(2, 1)
	for name, add := range map[string]func(*Writer) error{
		"an id twice":      func(w *Writer) error { return errors.Join(w.Add(good[0]), w.Add(good[0])) },
		"out of order":     func(w *Writer) error { return errors.Join(w.Add(good[1]), w.Add(good[0])) },
		"another pack":     func(w *Writer) error { r := good[0]; r.Pack = 1; return w.Add(r) },
		"too many records": func(w *Writer) error { w.footer.Records = MaxRecords; w.last = digest.Digest{}; return w.Add(good[0]) },
	} {
		w, err := NewWriter(io.Discard, nil, packsOf(nil, 1))
		if err != nil {
			t.Fatal(err)
		}
		if add(w) == nil {
			t.Errorf("%s: was written", name)
		}
	}
	if _, err := NewWriter(io.Discard, nil, []Pack{{Size: 1}}); err == nil {
		t.Error("a table with an impossible pack was taken")
	}
	w, err := NewWriter(io.Discard, nil, packsOf(nil, 1))
	if err != nil {
		t.Fatal(err)
	}
	w.footer.Packs[0].Size = 1 // as a caller that changes the table later would
	if _, err := w.Finish(); err == nil {
		t.Error("a segment left that nobody can read")
	}
}

type failing struct{ after int }

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errFull
	}
	return len(b), nil
}

var errFull = errors.New("disk full")

func TestWriterReportsFailedWrites(t *testing.T) {
	records := recordsOf(PageRecords+1, 1)
	for after := range 4 {
		w, err := NewWriter(&failing{after}, nil, packsOf(nil, 1))
		for i := 0; err == nil && i < len(records); i++ {
			err = w.Add(records[i])
		}
		if err == nil {
			_, err = w.Finish()
		}
		if !errors.Is(err, errFull) {
			t.Errorf("write %d fails: error is %v", after, err)
		}
	}
}

func BenchmarkOpenPage(b *testing.B) {
	obj, ref, err := Build(nil, packsOf(nil, 1), recordsOf(PageRecords, 1))
	if err != nil {
		b.Fatal(err)
	}
	f, _ := open(b, nil, obj, ref)
	off, n := f.PageRange(0, 0)
	for b.Loop() {
		if _, err := f.OpenPage(nil, 0, obj[off:off+n]); err != nil {
			b.Fatal(err)
		}
	}
}
