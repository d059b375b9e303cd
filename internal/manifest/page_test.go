package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

func TestDecodePageRefuses(t *testing.T) {
	file := func(p string) Entry { return Entry{Path: p, Digest: digest.Of(nil)} }
	for name, es := range map[string][]Entry{
		"no entry": {}, "out of order": {file("b"), file("a")}, "a path twice": {file("a"), file("a")},
		"a folder after what it holds": {file("a.b"), file("a/b")},
	} {
		b, err := frame.Encode(PageKind, PageVersion, &page{Entries: es})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodePage(b, true); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: decoded as %v, %v", name, got, err)
		}
		if _, err := EncodePage(es); err == nil {
			t.Errorf("%s: was encoded", name)
		}
	}
	good, err := EncodePage([]Entry{file("a:b")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodePage(good, false); err != nil {
		t.Errorf("not portable: %v", err)
	}
	var pe *PathError
	if _, err := DecodePage(good, true); !errors.As(err, &pe) {
		t.Errorf("portable: error is %v", err)
	}
	for name, b := range map[string][]byte{
		"a byte too many": append(slices.Clone(good), 0), "cut short": good[:len(good)-1], "another kind": append(frame.Header(ListKind, 1), good[8:]...),
		"too long": append(slices.Clone(good), make([]byte, MaxPage)...), "nothing": nil,
		"more entries than fit": append(frame.Header(PageKind, 1), 0x81, 0x9a, 0, 0x10, 0, 0),
	} {
		if _, err := DecodePage(b, false); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	var newer *frame.NewerError
	if _, err := DecodePage(append(frame.Header(PageKind, 2), good[8:]...), true); !errors.As(err, &newer) {
		t.Errorf("a newer version: error is %v", err)
	}
}

// TestPageOfClaimsTakesNoMemory decodes half a MiB of array elements that are
// not entries: a decoder that allocated for them first would take 70 MB.
func TestPageOfClaimsTakesNoMemory(t *testing.T) {
	bomb := append(frame.Header(PageKind, 1), 0x81, 0x9a, 0, 7, 0, 0)
	bomb = append(bomb, make([]byte, 7<<16)...)
	if took := allocated(func() {
		if _, err := DecodePage(bomb, true); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("error is %v", err)
		}
	}); took > 1<<20 {
		t.Errorf("took %d bytes", took)
	}
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestListRoundTrip(t *testing.T) {
	var refs []chunk.Ref
	var size int64
	for i := range MaxListRefs {
		refs = append(refs, chunk.Ref{ID: id(fmt.Sprint(i)), Size: int64(i + 1)})
		size += int64(i + 1)
	}
	b, err := EncodeList(refs)
	if err != nil || len(b) > MaxPage {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := DecodeList(b, size)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(refs, got, equal...); d != "" {
		t.Error(d)
	}
	for name, err := range map[string]error{
		"another size":    second(DecodeList(b, size+1)),
		"a byte too many": second(DecodeList(append(slices.Clone(b), 0), size)),
		"cut short":       second(DecodeList(b[:len(b)-1], size)),
	} {
		if !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	for name, refs := range map[string][]chunk.Ref{
		"no chunk": {}, "too many": append(slices.Clone(refs), refs[0]), "two holes": {{Size: 1}, {Size: 1}}, "a chunk of nothing": {{ID: id("x")}},
	} {
		if _, err := EncodeList(refs); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		b, err := frame.Encode(ListKind, ListVersion, &list{Chunks: refs})
		if err != nil {
			t.Fatal(err)
		}
		var size int64
		for _, r := range refs {
			size += r.Size
		}
		if got, err := DecodeList(b, size); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: decoded %d chunks, %v", name, len(got), err)
		}
	}
}

func second(_ []chunk.Ref, err error) error { return err }

type builtPage struct {
	id      digest.Digest
	first   string
	entries int
	bytes   int
}

func build(t testing.TB, es []Entry) (out []builtPage) {
	t.Helper()
	b := PageBuilder{Emit: func(p []byte, first string, n int) error {
		out = append(out, builtPage{digest.Of(p), first, n, len(p)})
		return nil
	}}
	for _, e := range es {
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	return out
}

// readBack checks that the pages hold es, and the values that Emit gets.
func readBack(t *testing.T, es []Entry) {
	t.Helper()
	var got []Entry
	b := PageBuilder{Emit: func(p []byte, first string, n int) error {
		page, err := DecodePage(p, true)
		if err != nil || len(page) != n || page[0].Path != first {
			t.Errorf("page %q: %d entries, %v", first, len(page), err)
		}
		got = append(got, page...)
		return nil
	}}
	for _, e := range es {
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(es, got, func(a, b Entry) bool { return a.Path == b.Path && a.SameContent(&b) }) {
		t.Error("the pages hold other entries")
	}
}

func changed(a, b []builtPage) (n int) {
	known := map[digest.Digest]bool{}
	for _, p := range a {
		known[p.id] = true
	}
	for _, p := range b {
		if !known[p.id] {
			n++
		}
	}
	return n
}

// trees returns the two typical trees: many small files, and large files
// whose entries take kilobytes.
func trees() map[string][]Entry {
	small := sample(8000)
	var large []Entry
	for i := range 700 {
		e := Entry{Path: fmt.Sprintf("image-%05d.wim", i), Digest: id(fmt.Sprint("f", i))}
		for j := range 40 + i%25 {
			e.Chunks = append(e.Chunks, chunk.Ref{ID: id(fmt.Sprint(i, j)), Size: 100000})
			e.Size += 100000
		}
		large = append(large, e)
	}
	return map[string][]Entry{"small files": small, "large files": large}
}

func TestPagesAreOfUsefulSize(t *testing.T) {
	for name, es := range trees() {
		pages := build(t, es)
		readBack(t, es)
		sum, most := 0, 0
		for _, p := range pages {
			sum += p.bytes
			most = max(most, p.bytes)
		}
		avg := sum / len(pages)
		t.Logf("%s: %d pages, average %d KiB, largest %d KiB, %d entries each", name, len(pages), avg>>10, most>>10, len(es)/len(pages))
		if avg < 48<<10 || avg > 128<<10 || most > MaxPage {
			t.Errorf("%s: the average page has %d KiB, the largest %d KiB", name, avg>>10, most>>10)
		}
	}
}

// TestOneEditChangesOnePage edits, adds and removes one entry anywhere: one
// page changes, or two or three if the edit touches a cut.
func TestOneEditChangesOnePage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const tries = 6
	for name, es := range trees() {
		before := build(t, es)
		for edit, fn := range map[string]func(i int) []Entry{
			"edit":   func(i int) []Entry { c := slices.Clone(es); c[i].MTime++; return c },
			"grow":   func(i int) []Entry { c := slices.Clone(es); grow(&c[i]); return c },
			"add":    func(i int) []Entry { e := es[i]; e.Path += "0"; return slices.Insert(slices.Clone(es), i+1, e) },
			"remove": func(i int) []Entry { return slices.Delete(slices.Clone(es), i, i+1) },
		} {
			pages, most := 0, 0
			for range tries {
				i := rng.IntN(len(es)-2) + 1
				for es[i].Kind == Dir {
					i--
				}
				n := changed(before, build(t, fn(i)))
				pages += n
				most = max(most, n)
			}
			if edit == "edit" && most > 1 || pages > tries*3/2 || most > 4 {
				t.Errorf("%s: %d of %s change %d pages, %d at most", name, tries, edit, pages, most)
			}
		}
	}
}

func grow(e *Entry) {
	e.Digest = id(e.Path + "grown")
	if len(e.Chunks) > 0 && len(e.Chunks) < MaxInline {
		e.Chunks = append(slices.Clone(e.Chunks), chunk.Ref{ID: id("grown"), Size: 9})
		e.Size += 9
	}
}

func TestPageBuilderHoldsTheLargestEntry(t *testing.T) {
	e := Entry{Path: "a", Digest: id("a")}
	for i := range MaxLists {
		e.Lists = append(e.Lists, ListRef{ID: id(fmt.Sprint(i)), Size: chunk.MaxHole / MaxLists})
		e.Size += chunk.MaxHole / MaxLists
	}
	es := []Entry{e, e, e}
	es[1].Path, es[2].Path = "b", "c"
	if pages := build(t, es); len(pages) != 3 {
		t.Errorf("%d pages", len(pages))
	}
}

// TestPageBuilderCutsWhatNothingElseCuts adds entries none of whose paths
// ends a page, so that the builder must cut by size.
func TestPageBuilderCutsWhatNothingElseCuts(t *testing.T) {
	var es []Entry
	for i := range 20000 {
		e := Entry{Path: fmt.Sprintf("image-%05d.wim", i), Digest: id(fmt.Sprint("f", i))}
		for j := range MaxInline {
			e.Chunks = append(e.Chunks, chunk.Ref{ID: id(fmt.Sprint(i%100, j)), Size: 100000})
			e.Size += 100000
		}
		if h := digest.Of([]byte(e.Path)); int64(binary.BigEndian.Uint32(h[:]))*pageTarget >= int64(estimateSize(&e))<<32 {
			es = append(es, e)
		}
		if len(es) == 500 {
			break
		}
	}
	pages := build(t, es)
	for i, p := range pages {
		if p.bytes > maxPageBytes || p.bytes < maxPageBytes*3/4 && i < len(pages)-1 {
			t.Errorf("page %d has %d bytes", i, p.bytes)
		}
	}
}

func TestEncodePageRefusesWhatIsTooLong(t *testing.T) {
	if _, err := EncodePage(sample(5000)); err == nil {
		t.Error("a page above the bound was encoded")
	}
}

func TestPageBuilderStopsAtErrors(t *testing.T) {
	boom := errors.New("boom")
	b := PageBuilder{Emit: func([]byte, string, int) error { return boom }}
	if err := b.Add(Entry{Path: "a", Digest: digest.Of(nil)}); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(); !errors.Is(err, boom) {
		t.Errorf("error is %v", err)
	}
	bad := PageBuilder{Emit: func([]byte, string, int) error { t.Error("a bad page was emitted"); return nil }}
	for _, p := range []string{"b", "a"} {
		if err := bad.Add(Entry{Path: p, Digest: digest.Of(nil)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := bad.Finish(); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("error is %v", err)
	}
}

// TestCutLists cuts the references of a 40 GiB file and changes one: the
// other chunk-list pages must stay the same.
func TestCutLists(t *testing.T) {
	refs := make([]chunk.Ref, 0, 300000)
	var size int64
	for i := range cap(refs) {
		r := chunk.Ref{ID: id(fmt.Sprint(i)), Size: 140000}
		if i%50 == 0 {
			r = chunk.Ref{Size: 1 << 20}
		}
		refs = append(refs, r)
		size += r.Size
	}
	cut := func(refs []chunk.Ref) (map[digest.Digest]int, int64) {
		pages := map[digest.Digest]int{}
		var sum int64
		ls, err := CutLists(refs, func(p []byte) (digest.Digest, error) {
			d := digest.Of(p)
			pages[d] = len(p)
			return d, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			sum += l.Size
		}
		return pages, sum
	}
	before, sum := cut(refs)
	if sum != size {
		t.Errorf("the lists cover %d bytes of %d", sum, size)
	}
	t.Logf("%d lists", len(before))
	changedRefs := slices.Clone(refs)
	changedRefs[150001].ID = id("changed")
	after, _ := cut(changedRefs)
	fresh := 0
	for d, n := range after {
		if _, ok := before[d]; !ok {
			fresh += n
		}
	}
	if fresh == 0 || fresh > 400<<10 {
		t.Errorf("one changed chunk makes %d bytes of new lists", fresh)
	}
	boom := errors.New("boom")
	if _, err := CutLists(refs[:10], func([]byte) (digest.Digest, error) { return digest.Digest{}, boom }); !errors.Is(err, boom) {
		t.Errorf("error is %v", err)
	}
	if _, err := CutLists([]chunk.Ref{{}}, func([]byte) (digest.Digest, error) { return digest.Digest{}, nil }); err == nil {
		t.Error("a list of nothing was emitted")
	}
}

func TestCutListsRefusesTooLargeAFile(t *testing.T) {
	// Every id ends a list if it may: this is the smallest such file.
	refs := slices.Repeat([]chunk.Ref{{ID: digest.Digest{31: 1}, Size: 1}}, minListRefs*MaxLists+1)
	emitted := 0
	_, err := CutLists(refs, func([]byte) (digest.Digest, error) { emitted++; return digest.Digest{1}, nil })
	if err == nil || emitted != MaxLists {
		t.Errorf("%d lists were emitted, %v", emitted, err)
	}
}

func TestPagesDoNotDependOnWhatCameBefore(t *testing.T) {
	es := sample(3000)
	a := build(t, es)
	b := build(t, es[len(es)/2:])
	if a[len(a)-1].id != b[len(b)-1].id {
		t.Error("the last page depends on the first half")
	}
}
