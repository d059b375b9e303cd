package collect

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"nightferry/internal/digest"
	"nightferry/internal/testbed"
)

func idOf(v uint64) (d digest.Digest) {
	binary.BigEndian.PutUint64(d[:], v)
	return d
}

// The set holds exactly the added ids, and a cursor beside any ascending walk
// reports the ids that the walk lacks.
func TestLiveIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few values, near one another and at both ends, so that they meet.
		value := rapid.OneOf(rapid.Uint64Range(0, 50), rapid.Uint64Range(1<<52-20, 1<<52+20), rapid.Uint64Range(1<<64-20, 1<<64-1), rapid.Uint64())
		added := rapid.SliceOf(value).Draw(t, "added")
		walked := rapid.SliceOf(value).Draw(t, "walked")
		slices.Sort(walked)
		var l live
		if rapid.Bool().Draw(t, "expect") {
			l.growFor(uint64(len(added)))
		}
		want := map[uint64]bool{}
		for _, v := range added {
			l.addIDs(idOf(v))
			want[v] = true
		}
		if n := l.len(); n != int64(len(want)) {
			t.Fatalf("%d ids, want %d", n, len(want))
		}
		var missing []uint64
		c := cursor{l: &l, missing: func(v uint64) { missing = append(missing, v) }}
		for _, v := range walked {
			if c.hasPrefix(v) != want[v] {
				t.Fatalf("%d: %v", v, !want[v])
			}
		}
		c.finishMissing()
		for _, v := range walked {
			delete(want, v)
		}
		if len(missing) != len(want) || !slices.IsSorted(missing) {
			t.Fatalf("missing %v, want %v", missing, want)
		}
		for _, v := range missing {
			if !want[v] {
				t.Fatalf("%d is not missing", v)
			}
		}
	})
}

// Ten million chunks, each named by several releases, take about 9 bytes each.
func TestLiveIsSmall(t *testing.T) {
	n := 2_000_000
	if testbed.Soak() {
		n = 10_000_000
	}
	var l live
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l.growFor(uint64(n))
	for range 2 {
		rnd := rand.New(rand.NewPCG(1, 2))
		for range n {
			l.addIDs(idOf(rnd.Uint64()))
		}
	}
	runtime.ReadMemStats(&after)
	have := l.len()
	t.Logf("%d ids: %d MiB from the system, %d MiB in use", have, (after.Sys-before.Sys)>>20, (after.HeapInuse-before.HeapInuse)>>20)
	if have != int64(n) || after.Sys-before.Sys > uint64(12*n) {
		t.Errorf("%d ids, %d MiB", have, (after.Sys-before.Sys)>>20)
	}
}
