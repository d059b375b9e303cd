package manifest

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
)

// sample makes a tree like a driver store: n files, 200 to a folder, one in
// ten with two chunks, and as many folders as needed.
func sample(n int) []Entry {
	sum := func(i, j int) digest.Digest { return sha256.Sum256(fmt.Append(nil, i, j)) }
	es := []Entry{{Path: "drivers", Kind: Dir, Mode: 0o755}}
	for i := range n {
		dir := fmt.Sprintf("drivers/vendor-and-model-%05d", i/200)
		if i%200 == 0 {
			es = append(es, Entry{Path: dir, Kind: Dir, Mode: 0o755})
		}
		e := Entry{Path: fmt.Sprintf("%s/x64-component-%07d.sys", dir, i), Size: int64(10000 + i), MTime: 1700000000_000000000 + int64(i), Mode: 0o644, Digest: sum(i, 0)}
		if i%10 == 0 {
			e.Chunks = []chunk.Ref{{ID: sum(i, 1), Size: 5000}, {ID: sum(i, 2), Size: 5000 + int64(i)}}
		}
		es = append(es, e)
	}
	return es
}

func perEntry(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
}

func BenchmarkDecodePage(b *testing.B) {
	es := sample(600)
	p, err := EncodePage(es)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePage(p, true); err != nil {
			b.Fatal(err)
		}
	}
	perEntry(b, len(es))
}

func BenchmarkEncodePage(b *testing.B) {
	es := sample(600)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := EncodePage(es); err != nil {
			b.Fatal(err)
		}
	}
	perEntry(b, len(es))
}

func BenchmarkChecker(b *testing.B) {
	es := sample(10000)
	b.ReportAllocs()
	for b.Loop() {
		c := Checker{Portable: true}
		for i := range es {
			if err := c.Add(&es[i]); err != nil {
				b.Fatal(err)
			}
		}
		c.Sum()
	}
	perEntry(b, len(es))
}

func BenchmarkTreeHash(b *testing.B) {
	es := sample(10000)
	for b.Loop() {
		var t TreeHash
		for i := range es {
			t.Add(es[i].Kind, es[i].Path, es[i].Digest)
		}
		t.Sum()
	}
	perEntry(b, len(es))
}

func BenchmarkComparePaths(b *testing.B) {
	es := sample(10000)
	for b.Loop() {
		for i := 1; i < len(es); i++ {
			ComparePaths(es[i-1].Path, es[i].Path)
		}
	}
	perEntry(b, len(es))
}

func BenchmarkPageBuilder(b *testing.B) {
	es := sample(10000)
	b.ReportAllocs()
	for b.Loop() {
		pb := PageBuilder{Emit: func([]byte, string, int) error { return nil }}
		for _, e := range es {
			if err := pb.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		if err := pb.Finish(); err != nil {
			b.Fatal(err)
		}
	}
	perEntry(b, len(es))
}
