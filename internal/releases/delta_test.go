package releases

import (
	"slices"
	"testing"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
)

// TestLackingCountsFromTheManifests: what a site needs is the content that its
// release lacks: not what has moved, nor what changed in time or mode, and of a
// changed file only the chunks that are new.
func TestLackingCountsFromTheManifests(t *testing.T) {
	id := func(s string) digest.Digest { return digest.Of([]byte(s)) }
	file := func(path, content string, size int64, chunks ...chunk.Ref) manifest.Entry {
		return manifest.Entry{Path: path, Kind: manifest.File, Size: size, Digest: id(content), Chunks: chunks}
	}
	ref := func(s string, n int64) chunk.Ref { return chunk.Ref{ID: id(s), Size: n} }
	next := func(list ...manifest.Entry) manifest.Next {
		slices.SortFunc(list, func(a, b manifest.Entry) int { return manifest.ComparePaths(a.Path, b.Path) })
		return func() (*manifest.Entry, error) {
			if len(list) == 0 {
				return nil, nil
			}
			e := &list[0]
			list = list[1:]
			return e, nil
		}
	}
	touched := file("same", "s", 1000)
	touched.MTime = 5
	big := file("big", "b2", 300)
	big.Lists = []manifest.ListRef{{ID: id("l1"), Size: 200}, {ID: id("l3"), Size: 100}}
	was := file("big", "b1", 300)
	was.Lists = []manifest.ListRef{{ID: id("l1"), Size: 200}, {ID: id("l2"), Size: 100}}
	n, err := lacking(
		next(file("image", "i1", 30, ref("a", 10), ref("b", 20)), file("old/name", "m", 500), file("gone", "g", 700), file("same", "s", 1000), was),
		next(file("image", "i2", 33, ref("a", 10), ref("c", 20), chunk.Ref{Size: 3}), file("new/name", "m", 500), file("added", "n", 7), file("twice", "n", 7), touched, big, file("empty", "", 0)))
	if want := int64(20 + 7 + 100); n != want || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, want)
	}
}
