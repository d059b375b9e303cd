package apply

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkPull pulls many small files, then does nothing, then moves a large
// one.
func BenchmarkPull(b *testing.B) {
	const files, size = 20_000, 10 << 10
	p := newPress(b, nil)
	src := b.TempDir()
	text := []byte(blob(1, size))
	for i := range files {
		dir := filepath.Join(src, fmt.Sprintf("d%03d", i/500))
		if i%500 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		binary.LittleEndian.PutUint64(text, uint64(i))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), text, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	p.publish(src)
	b.Run("first", func(b *testing.B) {
		b.SetBytes(files * size)
		for b.Loop() {
			p.must(b.TempDir(), nil)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/files, "µs/file")
	})
	dst := b.TempDir()
	p.must(dst, nil)
	b.Run("noop", func(b *testing.B) {
		for b.Loop() {
			if !p.must(dst, nil).NoOp {
				b.Fatal("no no-op")
			}
		}
	})
	b.Run("adopt", func(b *testing.B) {
		for b.Loop() {
			try(b, os.Remove(filepath.Join(dst, catalogueName)))
			p.must(dst, nil)
		}
	})
}
