package durable

import (
	"math"
	"os"
	"testing"
	"time"
)

func at(year int) int64 { return time.Date(year, 3, 4, 5, 6, 7, 123456789, time.UTC).UnixNano() }

// A stored time equals the wanted one if, and only if, the file system stores it for the wanted time.
func TestTraitsOfTimes(t *testing.T) {
	seconds := func(ns int64) int64 { return ns / 1e9 * 1e9 }
	kept := func(first, last, grain int64) func(int64) (int64, bool) {
		return func(ns int64) (int64, bool) {
			ns = min(max(ns, first), last)
			return ns - ns%grain, true
		}
	}
	fat := [2]int64{time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC).UnixNano()}
	for name, c := range map[string]struct {
		set   func(int64) (int64, bool)
		grain int64
	}{
		"everything": {kept(math.MinInt64, math.MaxInt64, 1), 100},
		"NTFS":       {kept(math.MinInt64, math.MaxInt64, 100), 100},
		"old ext4":   {kept(math.MinInt32*1e9, math.MaxInt32*1e9, 1e9), 1e9},
		"FAT":        {kept(fat[0], fat[1], 2e9), 2e9},
		"ntfs-3g": {func(ns int64) (int64, bool) {
			if ns < 0 {
				return seconds(ns), true
			}
			return ns - ns%100, true
		}, 100},
		"a refusal":   {func(ns int64) (int64, bool) { return seconds(ns), ns >= 0 && ns < math.MaxInt32*1e9 }, 1e9},
		"an overflow": {func(ns int64) (int64, bool) { return int64(int32(ns/1e9)) * 1e9, true }, 1e9},
		"none":        {func(int64) (int64, bool) { return 0, false }, 0},
	} {
		var tr Traits
		tr.times(c.set)
		if tr.Grain != c.grain {
			t.Errorf("%s: a grain of %d ns, want %d", name, tr.Grain, c.grain)
		}
		for _, year := range []int{1678, 1899, 1971, 1979, 1999, 2036, 2039, 2108, 2261} {
			if have, ok := c.set(tr.Time(at(year))); ok && !tr.SameTime(have, at(year)) {
				t.Errorf("%s: %d became %v, which does not count as it", name, year, time.Unix(0, have))
			}
		}
		if c.grain > 0 && (tr.SameTime(at(1999)+3e9, at(1999)) || tr.SameTime(at(1999), at(2001))) {
			t.Errorf("%s: another time counts as the same", name)
		}
	}
}

func TestNanoseconds(t *testing.T) {
	for year, want := range map[int]int64{1: math.MinInt64, 1601: math.MinInt64, 1999: at(1999), 2300: math.MaxInt64, 9999: math.MaxInt64} {
		if have := Nanoseconds(time.Date(year, 3, 4, 5, 6, 7, 123456789, time.UTC)); have != want {
			t.Errorf("%d: %d, want %d", year, have, want)
		}
	}
}

// Probing leaves no files behind, and finds the traits that these tests rely on.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir, Options{})
	ok(t, err)
	tr, err := ProbeTraits(r, ".")
	ok(t, err)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if tr.Grain == 0 || tr.Modes != hasModes {
		t.Errorf("%+v", tr)
	}
	ok(t, WriteTraits(r, "traits", tr))
	if again, err := ReadTraits(r, "traits"); err != nil || again != tr {
		t.Errorf("read %+v, %v", again, err)
	}
	ok(t, r.Close())
}
