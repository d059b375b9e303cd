package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// TestResume: a verification is stopped and resumed after the last reported path. It reads every file, and reads
// only those twice that were in progress.
func TestResume(t *testing.T) {
	many := map[string]string{}
	for i := range 400 {
		many[fmt.Sprintf("d%02d/f%03d", i%13, i)] = strings.Repeat("x", 100+i)
	}
	dir, entries := lay(t, many)
	const workers, every = 2, 37
	read := map[string]int{}
	var mu sync.Mutex
	var bytes, whole int64
	for _, e := range entries {
		whole += e.Size
	}
	after, rounds := "", 0
	for ; ; rounds++ {
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		_, err := Run(ctx, dir, next(entries), Options{After: after, Workers: workers,
			Limit: func(_ context.Context, k int) error { mu.Lock(); bytes += int64(k); mu.Unlock(); return nil },
			Read: func(path string, _ int64) {
				after = path
				read[path]++
				if n++; n == every {
					stop()
				}
			}}, func(f Finding) { t.Errorf("%+v", f) })
		stop()
		if err == nil {
			break
		}
		if rounds > 400 {
			t.Fatal("it does not come forward")
		}
	}
	if len(read) != len(many) {
		t.Errorf("%d of %d files were read", len(read), len(many))
	}
	for p, n := range read {
		if n != 1 {
			t.Errorf("%s was told %d times", p, n)
		}
	}
	// Files after the last reported path are read again.
	if bound := whole + int64(rounds)*(ahead+2*workers+1)*500; bytes > bound {
		t.Errorf("%d bytes were read of %d in %d rounds, the bound is %d", bytes, whole, rounds+1, bound)
	}
}

// TestRate: checks read as fast as the limit allows, and not faster.
func TestRate(t *testing.T) {
	const limit, size = 8 << 20, 16 << 20
	dir, entries := lay(t, map[string]string{"a": strings.Repeat("a", size/2), "b": strings.Repeat("b", size/4), "c": strings.Repeat("c", size/4)})
	l := rate.NewLimiter(limit, 1<<20)
	began := time.Now()
	totals, err := Run(t.Context(), dir, next(entries), Options{Workers: 1, Limit: func(ctx context.Context, n int) error { return l.WaitN(ctx, n) }}, func(f Finding) { t.Errorf("%+v", f) })
	if err != nil || totals.Bytes != size {
		t.Fatalf("%+v, %v", totals, err)
	}
	took := time.Since(began).Seconds()
	if got := float64(size-1<<20) / took; got > 1.1*limit {
		t.Errorf("%.0f bytes per second, the limit is %d", got, limit)
	} else {
		t.Logf("%.1f %% of the limit", 100*got/limit)
	}
}

// TestLimitEndsIt: an error of the limit is not a finding.
func TestLimitEndsIt(t *testing.T) {
	dir, entries := lay(t, files)
	bad := errors.New("no more")
	_, err := Run(t.Context(), dir, next(entries), Options{Limit: func(context.Context, int) error { return bad }}, func(f Finding) { t.Errorf("%+v", f) })
	if !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}

// TestSuspectIsReadByAQuickCheck: a quick check reads the suspect and no other file.
func TestSuspectIsReadByAQuickCheck(t *testing.T) {
	dir, entries := lay(t, files)
	var read []string
	_, err := Run(t.Context(), dir, next(entries), Options{Quick: true, Suspect: func(p string) bool { return p == "d/b" || p == "k/deep/f" },
		Read: func(p string, _ int64) { read = append(read, p) }}, func(f Finding) { t.Errorf("%+v", f) })
	if err != nil || !slices.Equal(read, []string{"d/b", "k/deep/f"}) {
		t.Errorf("%q, %v", read, err)
	}
}

// TestResumeInALargeFile: reading of a large file resumes where it was stopped. If the file changed since, it is
// read from its start.
func TestResumeInALargeFile(t *testing.T) {
	const size = 3*partial + 12345
	dir, entries := lay(t, map[string]string{"a": "first", "big.wim": strings.Repeat("0123456789abcdef", size/16) + "123456789", "z": "last"})
	whole := entries[1].Size
	var part Part
	stopAt := func(limit int64, o Options) (read int64, found []Finding) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var mu sync.Mutex
		o.Workers = 1
		o.Keep = func(p Part) { mu.Lock(); part = p; mu.Unlock() }
		o.Limit = func(_ context.Context, k int) error {
			mu.Lock()
			defer mu.Unlock()
			if read += int64(k); read >= limit {
				stop()
			}
			return nil
		}
		_, _ = Run(ctx, dir, next(entries), o, func(f Finding) { found = append(found, f) })
		return read, found
	}
	first, _ := stopAt(2*partial, Options{})
	if part.Path != "big.wim" || first-part.Offset > 2<<20 {
		t.Fatalf("%d bytes were read, and it is at %d of %q", first, part.Offset, part.Path)
	}
	kept := part
	second, found := stopAt(1<<62, Options{After: "a", Parts: []Part{kept}})
	if len(found) > 0 || second != whole-kept.Offset+int64(len("last")) {
		t.Errorf("%d bytes were read of the %d that were left: %v", second, whole-kept.Offset, found)
	}
	// A part is ignored if it is damaged or belongs to another file.
	for _, bad := range []Part{{Path: kept.Path, Digest: kept.Digest, Size: kept.Size, MTime: kept.MTime + 1, Offset: kept.Offset, State: kept.State},
		{Path: kept.Path, Digest: kept.Digest, Size: kept.Size, MTime: kept.MTime, Offset: kept.Offset, State: kept.State[:20]}} {
		if n, found := stopAt(1<<62, Options{After: "a", Parts: []Part{bad}}); len(found) > 0 || n != whole+int64(len("last")) {
			t.Errorf("%d bytes: %v", n, found)
		}
	}
}

// TestStoppedFindsNothing: a file that is being read when the run is stopped is not reported as unreadable.
func TestStoppedFindsNothing(t *testing.T) {
	dir, entries := lay(t, map[string]string{"a": "x", "b": "yy"})
	for range 40 {
		ctx, stop := context.WithCancel(t.Context())
		_, err := Run(ctx, dir, next(entries), Options{Workers: 2,
			Limit: func(ctx context.Context, k int) error {
				if k == 2 {
					<-ctx.Done()
				}
				return nil
			},
			Read: func(string, int64) {
				stop()
				for range 1000 {
					runtime.Gosched() // let the other file's reader finish
				}
			}}, func(f Finding) { t.Errorf("%+v", f) })
		stop()
		if err == nil {
			t.Fatal("a stopped run passed")
		}
	}
}
