package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

func id(s string) digest.Digest { return digest.Of([]byte(s)) }

// forms returns a valid entry of each form.
func forms() map[string]Entry {
	return map[string]Entry{
		"dir":    {Path: "d", Kind: Dir, Mode: 0o755},
		"empty":  {Path: "e", Mode: 0o644, MTime: -1, Digest: digest.Of(nil)},
		"single": {Path: "s", Size: chunk.MaxSize, MTime: 1, Mode: 0o777, Digest: id("s")},
		"hole":   {Path: "h", Size: 7, Digest: id("h"), Chunks: []chunk.Ref{{Size: 7}}},
		"chunks": {Path: "c", Size: 30, Digest: id("c"), Chunks: []chunk.Ref{{ID: id("1"), Size: 10}, {Size: 15}, {ID: id("2"), Size: 5}}},
		"sealed": {Path: "z", Size: 10, Digest: id("z"), Chunks: []chunk.Ref{{ID: id("1"), Size: 10}}},
		"lists":  {Path: "l", Size: chunk.MaxHole, Digest: id("l"), Lists: []ListRef{{ID: id("1"), Size: 1}, {ID: id("2"), Size: chunk.MaxHole - 1}}},
	}
}

func TestEntryValidateTakes(t *testing.T) {
	for name, e := range forms() {
		if err := e.Validate(true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if File.String() != "file" || Dir.String() != "dir" {
		t.Error("kinds have other names")
	}
}

// refused returns invalid entries, each one change away from a valid form.
func refused() map[string]Entry {
	out := map[string]Entry{}
	change := func(name, form string, fn func(*Entry)) {
		e := forms()[form]
		fn(&e)
		out[name] = e
	}
	change("a path that leaves", "single", func(e *Entry) { e.Path = "../s" })
	change("a mode with setuid", "single", func(e *Entry) { e.Mode = 0o4755 })
	change("a kind that is not known", "single", func(e *Entry) { e.Kind = 2 })
	change("a folder with a size", "dir", func(e *Entry) { e.Size = 1 })
	change("a folder with a time", "dir", func(e *Entry) { e.MTime = 1 })
	change("a folder with a digest", "dir", func(e *Entry) { e.Digest = id("d") })
	change("a folder with chunks", "dir", func(e *Entry) { e.Chunks = []chunk.Ref{{Size: 1}} })
	change("a folder with lists", "dir", func(e *Entry) { e.Lists = []ListRef{{ID: id("1"), Size: 1}} })
	change("a negative size", "single", func(e *Entry) { e.Size = -1 })
	change("a size above the bound", "lists", func(e *Entry) { e.Size++; e.Lists[1].Size++ })
	change("no digest", "single", func(e *Entry) { e.Digest = digest.Digest{} })
	change("an empty file with a digest", "empty", func(e *Entry) { e.Digest = id("x") })
	change("a large file of no chunks", "single", func(e *Entry) { e.Size++ })
	change("too many chunks", "chunks", func(e *Entry) {
		e.Chunks, e.Size = nil, 0
		for i := range MaxInline + 1 {
			e.Chunks = append(e.Chunks, chunk.Ref{ID: id(fmt.Sprint(i)), Size: 1})
			e.Size++
		}
	})
	change("too many lists", "lists", func(e *Entry) {
		e.Lists, e.Size = nil, 0
		for i := range MaxLists + 1 {
			e.Lists = append(e.Lists, ListRef{ID: id(fmt.Sprint(i)), Size: 1})
			e.Size++
		}
	})
	change("chunks and lists", "chunks", func(e *Entry) { e.Lists = []ListRef{{ID: id("1"), Size: 1}}; e.Size++ })
	change("a chunk that is the file", "sealed", func(e *Entry) { e.Chunks[0].ID = e.Digest })
	change("a chunk of nothing", "chunks", func(e *Entry) { e.Chunks[0].Size = 0; e.Size -= 10 })
	change("a hole after a hole", "hole", func(e *Entry) { e.Chunks = []chunk.Ref{{Size: 3}, {Size: 4}} })
	change("chunks that do not add up", "chunks", func(e *Entry) { e.Size++ })
	change("a list of nothing", "lists", func(e *Entry) { e.Lists[0].Size = 0; e.Size-- })
	change("a list without an id", "lists", func(e *Entry) { e.Lists[0].ID = digest.Digest{} })
	change("lists that wrap to the size", "lists", func(e *Entry) {
		e.Size, e.Lists = 7, []ListRef{{ID: id("1"), Size: 7}}
		for range 4 {
			e.Lists = append(e.Lists, ListRef{ID: id("2"), Size: 1 << 62})
		}
	})
	change("a list above the bound", "lists", func(e *Entry) { e.Lists[0].Size = chunk.MaxHole + 1 })
	return out
}

func TestEntryValidateRefuses(t *testing.T) {
	for name, e := range refused() {
		err := e.Validate(true)
		var pe *PathError
		if !errors.Is(err, frame.ErrDamaged) && !errors.As(err, &pe) {
			t.Errorf("%s: error is %v", name, err)
		}
		if _, err := EncodePage([]Entry{e}); err == nil {
			t.Errorf("%s: a page was made of it", name)
		}
		b, err := frame.Encode(PageKind, PageVersion, &page{Entries: []Entry{e}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodePage(b, true); err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		}
	}
}

func TestRefs(t *testing.T) {
	f := forms()
	for name, want := range map[string][]chunk.Ref{
		"dir": nil, "empty": nil, "single": {{ID: id("s"), Size: chunk.MaxSize}}, "hole": {{Size: 7}}, "chunks": f["chunks"].Chunks, "lists": nil,
	} {
		e := f[name]
		if d := cmp.Diff(want, e.Refs(), equal...); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

var equal = []cmp.Option{cmpopts.EquateEmpty(), cmp.AllowUnexported(chunk.Ref{}, Entry{}, ListRef{}, Release{}, PageRef{}, Totals{})}

// entries draws the entries of a valid page, in path order.
func entries() *rapid.Generator[[]Entry] {
	return rapid.Custom(func(t *rapid.T) (out []Entry) {
		n := rapid.IntRange(1, 30).Draw(t, "n")
		for i := range n {
			e := Entry{Path: fmt.Sprintf("%05d%s", i, strings.Repeat("é", rapid.IntRange(0, 100).Draw(t, "name"))), Mode: rapid.Uint16Range(0, 0o777).Draw(t, "mode")}
			switch form := rapid.IntRange(0, 4).Draw(t, "form"); form {
			case 0:
				e.Kind = Dir
			default:
				e.MTime = rapid.Int64().Draw(t, "mtime")
				e.Digest = id(e.Path)
				e.Size = rapid.Int64Range(1, chunk.MaxSize).Draw(t, "size")
				if form == 2 {
					e.Size = 0
					for j := range rapid.IntRange(1, MaxInline).Draw(t, "chunks") {
						r := chunk.Ref{ID: id(fmt.Sprint(i, j)), Size: rapid.Int64Range(1, chunk.MaxSize).Draw(t, "size")}
						e.Chunks = append(e.Chunks, r)
						e.Size += r.Size
					}
				}
				if form == 3 {
					e.Size = 0
					for j := range rapid.IntRange(1, 20).Draw(t, "lists") {
						l := ListRef{ID: id(fmt.Sprint(i, j)), Size: rapid.Int64Range(1, 1<<30).Draw(t, "size")}
						e.Lists = append(e.Lists, l)
						e.Size += l.Size
					}
				}
				if form == 4 {
					e.Size, e.Digest = 0, digest.Of(nil)
				}
			}
			out = append(out, e)
		}
		return out
	})
}

func TestPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := entries().Draw(t, "entries")
		b, err := EncodePage(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodePage(b, true)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal...); d != "" {
			t.Fatal(d)
		}
		if again, err := EncodePage(got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("encodes differently the second time: %v", err)
		}
		sum := 0
		for i := range want {
			sum += estimateSize(&want[i])
		}
		if len(b) > sum+frame.HeaderSize+8 {
			t.Fatalf("a page of %d bytes was estimated at %d", len(b), sum)
		}
	})
}
