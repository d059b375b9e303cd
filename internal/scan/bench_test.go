package scan

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkWalk walks 23 000 files in 1 000 folders, or the tree that
// NIGHTFERRY_BENCH_TREE names.
func BenchmarkWalk(b *testing.B) {
	dir := os.Getenv("NIGHTFERRY_BENCH_TREE")
	if dir == "" {
		dir = b.TempDir()
		for d := range 1000 {
			sub := filepath.Join(dir, fmt.Sprintf("folder-%03d", d))
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
			for f := range 23 {
				if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("driver-%04d.inf", f)), nil, 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	n := 0
	for b.Loop() {
		n = 0
		if err := Walk(context.Background(), dir, WalkOptions{}, func(Item) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n), "items")
	b.ReportAllocs()
}
