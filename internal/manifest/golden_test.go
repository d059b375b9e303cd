package manifest

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

// golden reads an artefact of format 1 that was written when the format was
// frozen. These files never change: a program that cannot read them cannot
// read any bucket.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "format1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// needSeeds fails a fuzz test whose committed seeds are missing: without
// seeds it would pass without testing anything.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
}

// goldenEntries returns the entries of the golden page: every form of an
// entry.
func goldenEntries() []Entry {
	return []Entry{
		{Path: "drivers", Kind: Dir, Mode: 0o755},
		{Path: "drivers/net", Kind: Dir, Mode: 0o700},
		{Path: "drivers/net/empty.txt", MTime: -1, Mode: 0o600, Digest: digest.Of(nil)},
		{Path: "drivers/net/é.inf", Size: 3, MTime: 1_700_000_000_123_456_789, Mode: 0o644, Digest: digest.Of([]byte("abc"))},
		{Path: "drivers.txt", Size: 40, Mode: 0o644, Digest: id("drivers.txt"), Chunks: []chunk.Ref{{ID: id("1"), Size: 10}, {Size: 20}, {ID: id("2"), Size: 10}}},
		{Path: "image.wim", Size: 40 << 30, Mode: 0o444, Digest: id("image"), Lists: []ListRef{{ID: id("3"), Size: 20 << 30}, {ID: id("4"), Size: 20 << 30}}},
	}
}

func goldenList() ([]chunk.Ref, int64) {
	return []chunk.Ref{{ID: id("1"), Size: 131072}, {Size: 1 << 33}, {ID: id("2"), Size: 1}}, 131072 + 1<<33 + 1
}

func TestGolden(t *testing.T) {
	t.Run("page", func(t *testing.T) {
		b := golden(t, "page")
		got, err := DecodePage(b, true)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(goldenEntries(), got, equal...); d != "" {
			t.Error(d)
		}
		if again, err := EncodePage(goldenEntries()); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encodes as %x, %v", again, err)
		}
	})
	t.Run("list", func(t *testing.T) {
		b := golden(t, "list")
		want, size := goldenList()
		got, err := DecodeList(b, size)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal...); d != "" {
			t.Error(d)
		}
		if again, err := EncodeList(want); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encodes as %x, %v", again, err)
		}
	})
	t.Run("release", func(t *testing.T) {
		b := golden(t, "release")
		got, err := DecodeRelease(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(release(), got, equal...); d != "" {
			t.Error(d)
		}
		if again, err := EncodeRelease(release()); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encodes as %x, %v", again, err)
		}
	})
	t.Run("tree", func(t *testing.T) {
		totals, tree := sumOf(goldenEntries())
		if want := (Totals{Files: 4, Dirs: 2, Bytes: 40<<30 + 43}); totals != want {
			t.Errorf("totals are %+v", totals)
		}
		if want := digest.Digest(golden(t, "tree")); tree != want {
			t.Errorf("the tree digest is %s, format 1 has %s", tree, want)
		}
	})
}

// FuzzDecodePage checks three things: every page that parses encodes to the same bytes, the reader agrees with the
// general decoder, and memory stays in proportion to the input.
func FuzzDecodePage(f *testing.F) {
	needSeeds(f)
	f.Add(golden(f, "page"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []Entry
		var err error
		if took := allocated(func() { got, err = DecodePage(b, false) }); took > uint64(64*len(b))+1<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		var p page
		generic := frame.Decode(PageKind, PageVersion, MaxPage, b, &p)
		if generic == nil {
			generic = checkPage(p.Entries, false)
		}
		if (err == nil) != (generic == nil) {
			t.Fatalf("the reader says %v, the decoder %v", err, generic)
		}
		if err != nil {
			return
		}
		if again, err := EncodePage(got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
		if !slices.IsSortedFunc(got, func(a, b Entry) int { return ComparePaths(a.Path, b.Path) }) {
			t.Fatal("entries out of order")
		}
	})
}

func FuzzDecodeList(f *testing.F) {
	needSeeds(f)
	_, size := goldenList()
	f.Add(golden(f, "list"), size)
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		var got []chunk.Ref
		var err error
		if took := allocated(func() { got, err = DecodeList(b, size) }); took > uint64(64*len(b))+1<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		if err != nil {
			return
		}
		if again, err := EncodeList(got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

func FuzzDecodeRelease(f *testing.F) {
	needSeeds(f)
	f.Add(golden(f, "release"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got *Release
		var err error
		// A release is verified before it is parsed, so it may use the memory
		// of 2^20 page references.
		if took := allocated(func() { got, err = DecodeRelease(b) }); took > uint64(256*len(b))+80<<20 {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), took)
		}
		if err != nil {
			return
		}
		if again, err := EncodeRelease(got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

// FuzzCheckPath checks that an accepted path stays inside its target, is the
// same after cleaning, and shares a folder with no alias of itself.
func FuzzCheckPath(f *testing.F) {
	needSeeds(f)
	for _, e := range goldenEntries() {
		f.Add(e.Path)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p, false) != nil {
			if CheckPath(p, true) == nil {
				t.Fatalf("%q is portable, but not allowed", p)
			}
			return
		}
		if !filepath.IsLocal(filepath.FromSlash(p)) || filepath.ToSlash(filepath.Clean(p)) != p || strings.ContainsAny(p, "\x00\n\r") {
			t.Fatalf("%q was taken", p)
		}
		if CheckPath(p, true) == nil && strings.ContainsAny(p, `\:`) {
			t.Fatalf("%q passed for portable", p)
		}
	})
}
