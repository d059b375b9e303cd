package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// mode is one way in which a store call fails.
type mode struct {
	name string
	rule testbed.Rule
}

var modes = []mode{
	{"failed", testbed.Rule{}},
	{"failed but happened", testbed.Rule{Done: true}},
	{"killed before", testbed.Rule{Dead: true}},
	{"killed after", testbed.Rule{Dead: true, Done: true}},
}

// scene is a lab that can be restored to its initial state any number of times.
type scene struct {
	l   *lab
	dir string // of the store
}

func newScene(t *testing.T, seal []byte) *scene {
	dir := t.TempDir()
	return &scene{l: newLab(t, testbed.OpenStore(t, testbed.FileURL(dir), bucket.Options{}), seal), dir: dir}
}

func (s *scene) again(t *testing.T) *lab {
	t.Helper()
	dir, state := t.TempDir(), t.TempDir()
	for from, to := range map[string]string{s.dir: dir, s.l.state: state} {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	l := *s.l
	l.t, l.state = t, state
	l.base = testbed.OpenStore(t, testbed.FileURL(dir), bucket.Options{})
	l.clock = &storeClock{now: s.l.clock.Now()}
	l.store = &clocked{s: l.base, c: l.clock, modified: maps.Clone(s.l.store.modified)}
	return &l
}

// matrix runs work once to record its calls, and then once for each call and
// mode, in a fresh lab. check judges the result and tries again.
func (s *scene) matrix(t *testing.T, work func(*lab, bucket.Store) error, check func(*testing.T, *lab)) {
	l := s.again(t)
	record := testbed.Fail(l.store)
	if err := work(l, record); err != nil {
		t.Fatal(err)
	}
	check(t, l)
	calls := record.Calls()
	t.Logf("%d calls", len(calls))
	stride := 1
	if l.seal != nil && !testbed.Soak() {
		stride = 4 // the calls equal those of a plain repository: a sample is enough
	}
	for i, call := range calls {
		if i%stride != 0 {
			continue
		}
		for _, m := range modes {
			if m.rule.Dead && !m.rule.Done && call.Op != "put" && call.Op != "delete" {
				continue // dying before a read equals dying after the call before it
			}
			t.Run(fmt.Sprintf("%02d %s %.30s %s", i+1, call.Op, call.Key, m.name), func(t *testing.T) {
				t.Parallel()
				l := s.again(t)
				rule := m.rule
				rule.Nth = i + 1
				err := work(l, testbed.Fail(l.store, rule))
				if err != nil && !errors.Is(err, testbed.ErrFault) && !errors.Is(err, testbed.ErrDead) {
					t.Errorf("the fault shows as %v", err)
				}
				check(t, l)
			})
		}
	}
}

// head returns the number of the channel's head, 0 if it has none.
func (l *lab) head(channel string) trust.ReleaseNumber {
	l.t.Helper()
	r, err := l.open(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	h, err := r.Head(l.t.Context(), channel)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return h.Number
}

// TestFaultMatrixOfPush lets a push fail or die at each call, before or after
// the call takes effect. The repository must be whole, the head must be the old
// or the new release, and another push must complete the work.
func TestFaultMatrixOfPush(t *testing.T) {
	sealKeys(t, func(t *testing.T, seal []byte) {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("first=%v", first), func(t *testing.T) {
				s := newScene(t, seal)
				old := trust.ReleaseNumber(0)
				if !first {
					old = 1
					s.l.write("a", 70<<10, 1)
					s.l.write("b", 10<<10, 2)
					s.l.mustPush()
				}
				s.l.write("a", 80<<10, 3)
				s.l.write("c/d", 20<<10, 4)
				push := func(l *lab, store bucket.Store) error {
					_, err := l.push(store, "core", labChannel)
					return err
				}
				s.matrix(t, push, func(t *testing.T, l *lab) {
					l.healthy()
					if n := l.head(labChannel); n != old && n != old+1 {
						t.Errorf("the head is release %d", n)
					}
					res := l.mustPush()
					if n := l.head(labChannel); n <= old || n != res.Number {
						t.Errorf("the head is release %d after another push: %+v", n, res)
					}
					l.healthy()
				})
			})
		}
	})
}

// TestFaultMatrixOfGC does the same with a gc that deletes a release, rewrites
// a pack, condemns, revives, and deletes packs and leftovers, all in one run.
func TestFaultMatrixOfGC(t *testing.T) {
	sealKeys(t, func(t *testing.T, seal []byte) {
		s := newScene(t, seal)
		l := s.l
		step := func() { l.clock.advance(2 * l.grace) }
		l.write("x", 40<<10, 1) // its pack will be deleted
		l.mustPush()
		step()
		l.remove("x")
		l.write("y", 40<<10, 2) // its pack will be revived
		l.mustPush()
		step()
		l.remove("y")
		l.write("z", 40<<10, 3) // its pack will be condemned
		l.mustPush()
		step()
		other := *l // another channel, in whose release y comes back while gc condemns it
		other.src = t.TempDir()
		other.write("y", 40<<10, 2)
		relies := &gate{Store: l.store, key: repo.ChannelsPrefix, before: func() { l.mustGC(keepOne) }}
		if _, err := other.push(relies, "core", "driver"); err != nil {
			t.Fatal(err)
		}
		l.remove("z")
		for i := range 8 {
			l.write(fmt.Sprint("m", i), 40<<10, uint64(10+i)) // their pack will be rewritten
		}
		l.mustPush()
		for i := range 7 {
			l.remove(fmt.Sprint("m", i))
		}
		if _, err := l.push(testbed.Fail(l.store, testbed.Rule{Op: "put", Prefix: repo.RootKey, Nth: 1, Dead: true}), "core", labChannel); err == nil {
			t.Fatal("the push lived") // its packs are leftovers
		}
		l.mustPush()
		step()
		gc := func(l *lab, store bucket.Store) error {
			rep, err := l.gc(store, keepOne)
			if err == nil && (rep.Expired == 0 || rep.Repacked == 0 || rep.Revived == 0 || rep.Deleted == 0 || rep.Leftovers == 0) {
				t.Errorf("the scene differs from the plan: %+v", rep)
			}
			return err
		}
		want := l.head(labChannel)
		s.matrix(t, gc, func(t *testing.T, l *lab) {
			l.healthy()
			for range 3 {
				if _, err := l.gc(nil, keepOne); err != nil {
					t.Fatal(err)
				}
				l.clock.advance(2 * l.grace)
			}
			if rep := l.healthy(); rep.Garbage != 0 || rep.Releases != 2 {
				t.Errorf("%+v", rep)
			}
			if n := l.head(labChannel); n != want {
				t.Errorf("the head is release %d", n)
			}
		})
	})
}
