package durable

import (
	"fmt"
	"testing"
)

// BenchmarkStage measures the work of a pull per small file: create, write, rename into a folder three levels deep.
// It does not sync, because SyncAll does that once.
func BenchmarkStage(b *testing.B) {
	r, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.MkdirAll("a/b/c", 0o755); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		name := fmt.Sprintf("stage-%07d", i)
		f, err := r.Create(name, 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		if err := r.Rename(name, "a/b/c/"+name); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck measures the check for links, which is part of every operation.
func BenchmarkCheck(b *testing.B) {
	r, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.MkdirAll("a/b/c", 0o755); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.check("a/b/c/file", false); err != nil {
			b.Fatal(err)
		}
	}
}
