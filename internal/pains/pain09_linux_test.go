package pains

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"nightferry/internal/manifest"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// aws-cli #661, kopia #93: memory and requests grow with the number of files.
//
// The test runs the released program in its own processes and reads their peak memory from the kernel. It logs times
// but does not assert them, because the machine may be busy.
func TestPain09_ManyFiles(t *testing.T) {
	const (
		memory = 256 << 20 // bytes
		perDir = 100
	)
	// A no-op must not hold a list of all files; with this many files, such a list would exceed the limit.
	files, lean := 100_000, int64(48<<20)
	if testbed.Soak() {
		files, lean = 1_000_000, memory
	}
	w := newWorld(t, plan{s3: true})
	site := w.site()
	counted, wire := s3test.CountHTTP(t, w.bucket)
	w.bucket = counted
	store, key := w.initCLI()
	began := time.Now()
	crowd(t, w.src, files, perDir)
	t.Logf("%d files made in %v", files, time.Since(began).Round(time.Millisecond))
	step := func(name string, memory int64, args ...string) s3test.WireCounts {
		t.Helper()
		wire.Reset()
		began := time.Now()
		r := w.nightferry(args...)
		took, c := time.Since(began).Round(time.Millisecond), wire.Counts()
		peak := r.peak
		t.Logf("%-12s %8v, peak memory %3d MiB, %v", name, took, peak>>20, c)
		if r.code != 0 {
			t.Fatalf("%s ended with %d: %s%s", name, r.code, r.out, r.errOut)
		}
		if peak == 0 {
			t.Errorf("%s: its memory was not seen", name)
		}
		if peak > memory {
			t.Errorf("%s took %d MiB of memory, want at most %d", name, peak>>20, memory>>20)
		}
		if c.Kinds[s3test.KindList]+c.Kinds[s3test.KindHead] > 0 {
			t.Errorf("%s listed or asked for heads: %v", name, c)
		}
		return c
	}
	push := []string{"push", "--release-key", key, w.src, store, channel}
	pull := []string{"pull", store, channel, site}
	step("first push", memory, push...)
	step("first pull", 3*memory, pull...) // it holds its whole plan, some 400 bytes a file
	step("second push", memory, push...)  // reads again the files that were too recent to trust their times
	for _, noop := range []struct {
		name     string
		args     []string
		requests int64 // format, newer trust, halt, head; a push also reads the index root
	}{{"no-op push", push, 5}, {"no-op pull", pull, 4}} {
		if c := step(noop.name, lean, noop.args...); c.Requests() > noop.requests || c.Down+c.Up > 64<<10 {
			t.Errorf("%s took %v, want at most %d requests and next to no bytes", noop.name, c, noop.requests)
		}
	}
	if n := count(t, site); n != files {
		t.Errorf("%d files arrived, want %d", n, files)
	}
}

// crowd makes n small files of different content.
func crowd(t testing.TB, dir string, n, perDir int) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, runtime.GOMAXPROCS(0))
	for worker := range cap(errs) {
		wg.Go(func() {
			for d := worker; d < n/perDir; d += cap(errs) {
				folder := filepath.Join(dir, fmt.Sprintf("%03d", d/100), fmt.Sprintf("%02d", d%100))
				if err := os.MkdirAll(folder, 0o755); err != nil {
					errs <- err
					return
				}
				for f := range perDir {
					text := fmt.Sprintf("content of file %d in folder %d", f, d)
					if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("driver-%03d.inf", f)), []byte(text), 0o644); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

// count counts the files below dir that are not nightferry's own.
func count(t testing.TB, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == manifest.StateDir {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}
