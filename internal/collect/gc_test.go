package collect

import (
	"testing"
	"time"

	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

func sealKeys(t *testing.T, run func(*testing.T, []byte)) {
	t.Run("plain", func(t *testing.T) { run(t, nil) })
	t.Run("encrypted", func(t *testing.T) { run(t, []byte("0123456789abcdef0123456789abcdef")) })
}

// TestGCFrees: unneeded objects are deleted in two runs with the grace between
// them.
func TestGCFrees(t *testing.T) {
	sealKeys(t, func(t *testing.T, key []byte) {
		l := newLab(t, nil, key)
		l.write("a", 3<<20, 1)
		l.mustPush()
		l.clock.advance(l.grace)
		l.write("a", 3<<20, 2)
		l.mustPush()
		l.clock.advance(l.grace)

		dry := l.mustGC(Options{Keep: 1, DryRun: true})
		if dry.Expired != 1 || dry.Condemned != 1 || dry.Deleted != 0 {
			t.Fatalf("dry run: %+v", dry)
		}
		before := len(testbed.Keys(t, l.base, ""))
		if rep := l.mustGC(Options{Keep: 1}); rep.Expired != 1 || rep.Condemned != 1 || rep.Deleted != 0 {
			t.Fatalf("first run: %+v", rep)
		}
		if n := len(testbed.Keys(t, l.base, "")); n != before-1 {
			t.Fatalf("%d objects, want one release less than %d", n, before)
		}
		l.clock.advance(l.grace / 2)
		if rep := l.mustGC(Options{Keep: 1}); rep.Doomed != 1 || rep.Deleted != 0 {
			t.Fatalf("within the grace: %+v", rep)
		}
		l.clock.advance(l.grace)
		if rep := l.mustGC(Options{Keep: 1}); rep.Deleted != 1 || rep.DeletedBytes < 3<<20 {
			t.Fatalf("after the grace: %+v", rep)
		}
		l.clock.advance(2 * l.grace)
		l.mustGC(Options{Keep: 1}) // the segment that was merged away
		rep, all := l.fsck(FsckOptions{ReadData: true})
		if rep.Damage+rep.Garbage != 0 || rep.Packs != 1 {
			t.Fatalf("fsck: %+v %v", rep, all)
		}
	})
}

// TestGCRevives: gc keeps a pack that a push has come to need within the grace.
func TestGCRevives(t *testing.T) {
	l := newLab(t, nil, nil)
	l.write("a", 1<<20, 1)
	l.mustPush()
	l.clock.advance(l.grace)
	l.remove("a")
	l.write("b", 1<<20, 2)
	l.mustPush()
	l.clock.advance(l.grace)

	// A push reads the root, gc condemns a pack that it relies on, and the push
	// ends.
	l.write("a", 1<<20, 1)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/releases/3"}
	s.before = func() {
		if rep := l.mustGC(Options{Keep: 1}); rep.Condemned != 1 {
			t.Errorf("%+v", rep)
		}
	}
	res, err := l.push(s, "core", labChannel)
	if err != nil || res.New > 1<<16 {
		t.Fatalf("%+v %v", res, err)
	}
	l.clock.advance(2 * l.grace)
	if rep := l.mustGC(Options{Keep: 1}); rep.Revived != 1 || rep.Deleted != 0 {
		t.Fatalf("%+v", rep)
	}
	l.healthy()
}

// TestGCRepacks: gc rewrites packs of which little is needed, and loses
// nothing.
func TestGCRepacks(t *testing.T) {
	sealKeys(t, func(t *testing.T, key []byte) {
		l := newLab(t, nil, key)
		for i := range 40 {
			l.write(string(rune('a'+i%26))+string(rune('a'+i/26)), 200<<10, uint64(i))
		}
		l.mustPush()
		l.clock.advance(l.grace)
		for i := range 36 {
			l.remove(string(rune('a'+i%26)) + string(rune('a'+i/26)))
		}
		l.mustPush()
		l.clock.advance(l.grace)
		rep := l.mustGC(Options{Keep: 1})
		if rep.Repacked != 1 || rep.RepackedBytes == 0 || rep.RepackedBytes > 2<<20 {
			t.Fatalf("%+v", rep)
		}
		l.healthy()
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(Options{Keep: 1}); rep.Deleted != 1 {
			t.Fatalf("%+v", rep)
		}
		l.healthy()
	})
}

func TestGCKeepsByAge(t *testing.T) {
	l := newLab(t, nil, nil)
	for i := range 6 {
		l.write("a", 1000, uint64(i))
		l.mustPush()
		l.clock.advance(24 * time.Hour)
	}
	// Releases 1 to 6, one a day; each was current until the next one came.
	for _, c := range []struct {
		o    Options
		kept int
	}{
		{Options{}, 6},
		{Options{Keep: 2}, 2},
		{Options{Keep: 1, KeepWithin: 25 * time.Hour}, 2},
		{Options{Keep: 1, KeepWithin: 73 * time.Hour}, 4},
		{Options{Keep: 3, KeepWithin: 25 * time.Hour}, 3},
		{Options{Keep: 1, Hold: map[string][]trust.ReleaseNumber{labChannel: {3}}}, 4},
	} {
		c.o.DryRun = true
		if rep := l.mustGC(c.o); rep.Kept != c.kept || rep.Expired != 6-c.kept {
			t.Errorf("%+v: %+v", c.o, rep)
		}
	}
}
