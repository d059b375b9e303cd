package apply

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// refuser returns an error for chosen changes.
type refuser func(durable.Op) error

func (r refuser) Before(op durable.Op) error { return r(op) }

func locked(kind durable.OpKind, names ...string) refuser {
	return func(op durable.Op) error {
		for _, n := range names {
			if op.Kind == kind && (op.Name == n || op.To == n) {
				return durable.ErrLocked
			}
		}
		return nil
	}
}

func TestPain06_LockedFileHoldsTheWholeReleaseBack(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, after)
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) { o.Observer = locked(durable.Probe, "edit") })
	if err != nil || r.Verdict != Incomplete || r.Locked != 1 || r.files["edit"].Outcome != runs.FileLocked {
		t.Fatalf("%v %v %v", r.Verdict, err, r.outcomes())
	}
	if d := cmp.Diff(brief(mustHave(before)), brief(seen(t, dst))); d != "" {
		t.Fatalf("something became visible:\n%s", d)
	}
	// Staged files are not fetched again.
	r = p.must(dst, nil)
	sameTree(t, src, dst)
	if r.BytesFetched != 0 {
		t.Errorf("fetched %d bytes again", r.BytesFetched)
	}
}

// mustHave adds the folders that seen reports.
func mustHave(tr tree) tree {
	return with(tr, func(out tree) {
		for p := range tr {
			for d := filepath.ToSlash(filepath.Dir(p)); d != "."; d = filepath.ToSlash(filepath.Dir(d)) {
				out[d+"/"] = ""
			}
		}
	})
}

func TestLockedWaitsUntilFree(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, after)
	p.publish(src)
	probes := 0
	p.must(dst, func(o *Options) {
		o.LockWait = time.Minute
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Probe && op.Name == "edit" {
				if probes++; probes < 3 {
					return durable.ErrLocked
				}
			}
			return nil
		})
	})
	sameTree(t, src, dst)
}

func TestLockedPartialDoesTheRest(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, after)
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) { o.Partial, o.Observer = true, locked(durable.Probe, "edit", "gone/x", "a") })
	if err != nil || r.Verdict != Incomplete {
		t.Fatal(r.Verdict, err)
	}
	for path, want := range map[string]runs.Outcome{"edit": runs.FileLocked, "gone/x": runs.FileLocked, "a": runs.FileLocked, "b": runs.FileLocked, "img": runs.FileChanged} {
		if r.files[path].Outcome != want {
			t.Errorf("%s: %s, want %s", path, r.files[path].Outcome, want)
		}
	}
	whole(t, "partial", dst, before, after)
	r = p.must(dst, nil)
	sameTree(t, src, dst)
	if r.files["gone/x"].Outcome != runs.FileDeleted {
		t.Errorf("a locked delete was forgotten: %v", r.outcomes())
	}
}

// A program opens a file during the commit.
func TestLockedInTheBurst(t *testing.T) {
	for _, c := range []struct {
		name    string
		op      refuser
		path    string
		nothing bool // nothing is committed
	}{
		{"a new file's place", locked(durable.Rename, "img"), "img", false},
		{"a deletion", locked(durable.Remove, "gone/x"), "gone/x", false},
		{"a moved file's place", locked(durable.Rename, "move2/to"), "move2/to", false},
		{"a file that must make way", locked(durable.Rename, "turn"), "turn", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, src, dst := dirs(t, before)
			p.publish(src)
			p.must(dst, nil)
			lay(t, src, after)
			p.publish(src)
			r, err := p.pull(dst, func(o *Options) { o.Observer = c.op })
			if err != nil || r.Verdict != Incomplete || r.files[c.path].Outcome != runs.FileLocked {
				t.Fatalf("%v %v %v", r.Verdict, err, r.outcomes())
			}
			whole(t, c.name, dst, before, after)
			if c.nothing {
				if d := cmp.Diff(brief(mustHave(before)), brief(seen(t, dst))); d != "" {
					t.Errorf("something became visible:\n%s", d)
				}
			}
			r = p.must(dst, nil)
			sameTree(t, src, dst)
			if r.BytesFetched != 0 {
				t.Errorf("fetched %d bytes again", r.BytesFetched)
			}
		})
	}
}

func TestDiskFullInMidStage(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	lay(t, dst, tree{"a.txt": "older"})
	written := 0
	_, err := p.pull(dst, func(o *Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) {
				if written += len(op.Data); written > 2_000_000 {
					return errDiskFull
				}
			}
			return nil
		})
	})
	if err == nil || !durable.IsDiskFull(err) || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("error %v", err)
	}
	if d := cmp.Diff(tree{"a.txt": "older"}, seen(t, dst)); d != "" {
		t.Errorf("the target was touched:\n%s", d)
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}

func TestPain11_ResumesWhereItWasStopped(t *testing.T) {
	big := tree{}
	total := int64(0)
	for i := range 3 {
		big[fmt.Sprintf("img%d", i)] = blob(uint64(i), 12_000_000)
		total += 12_000_000
	}
	p, src, dst := dirs(t, big)
	p.publish(src)
	fetched, wire := int64(0), int64(0)
	for try := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := int64(0)
		gate := func(context.Context) error { return nil }
		o := options(nil)
		var mu sync.Mutex
		o.Observer = refuser(func(op durable.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) {
				if seen += int64(len(op.Data)); seen > 9_000_000 && try < 3 {
					cancel()
				}
			}
			return nil
		})
		o.Gate = gate
		r, err := Run(ctx, p.store, dst, o)
		cancel()
		fetched += r.BytesFetched
		wire += r.BytesWire
		if try == 3 && (err != nil || r.Verdict != Verified) {
			t.Fatal(r.Verdict, err)
		}
		if try == 0 && err == nil {
			t.Fatal("was not stopped")
		}
	}
	sameTree(t, src, dst)
	// Three stops, each with at most one block of 1 MiB in flight per connection.
	if slack := int64(3 * 8 << 20); wire > total+slack || fetched > total+slack {
		t.Errorf("fetched %d bytes of content, %d on the wire, for %d", fetched, wire, total)
	}
	t.Logf("%d bytes of content fetched in four runs for %d", fetched, total)
}

// TestProgressOfReadBack: when all bytes are written, the run reports the read-back as a phase with its own
// percentage, from the bytes that were read back during staging to all of them.
func TestProgressOfReadBack(t *testing.T) {
	const size = 12 << 20
	p, src, dst := dirs(t, tree{"image.iso": blob(1, size), "small": "x"})
	p.publish(src)
	var phases []string
	var moved int
	ahead := false // the checkers read along while content arrives, and had read all when the phase began
	last := Event{}
	p.must(dst, func(o *Options) {
		o.OnEvent = func(e Event) {
			switch {
			case e.Kind == PhaseEvent:
				phases = append(phases, e.Phase)
			case e.Kind == ProgressEvent && e.Phase == PhaseBack:
				if e.BytesTotal != size || e.BytesDone > size {
					t.Errorf("%d of %d bytes", e.BytesDone, e.BytesTotal)
				}
				if last.Kind != ProgressEvent {
					ahead = e.BytesDone == size
				}
				if e.BytesDone > last.BytesDone && e.BytesDone < size {
					moved++
				}
				if e.BytesDone >= last.BytesDone {
					last = e
				}
			case e.Kind == ProgressEvent && last.Kind == ProgressEvent:
				t.Errorf("after the read-back: %+v", e)
			}
		}
	})
	if i := slices.Index(phases, PhaseStage); i < 0 || i+1 >= len(phases) || phases[i+1] != PhaseBack {
		t.Errorf("phases %q", phases)
	}
	if moved == 0 && !ahead || last.BytesDone != size || last.FilesDone != 2 {
		t.Errorf("reported %d times within, last %+v", moved, last)
	}
}

// TestProgressWithinAFile: the byte counter moves while a single large file is staged, whether fetched or found
// here. A resumed run starts where the last one ended.
func TestProgressWithinAFile(t *testing.T) {
	const size = 8 << 20
	p, src, dst := dirs(t, tree{"image.iso": blob(1, size)})
	p.publish(src)
	enough := errors.New("enough")
	pull := func(what string, least, most int64, edit func(*Options)) {
		t.Helper()
		within, first, last := 0, int64(-1), int64(0)
		_, err := p.pull(dst, func(o *Options) {
			if edit != nil {
				edit(o)
			}
			o.OnEvent = func(e Event) {
				if e.Kind != ProgressEvent || e.Phase == PhaseBack {
					return
				}
				if first < 0 {
					first = e.BytesDone
				}
				if e.BytesDone < last || e.BytesDone > e.BytesTotal || e.BytesTotal != size {
					t.Errorf("%s: %d of %d bytes after %d", what, e.BytesDone, e.BytesTotal, last)
				}
				if last = e.BytesDone; last > 0 && last < size && e.FilesDone == 0 {
					within++
				}
			}
		})
		if stopped := errors.Is(err, enough); err != nil && !stopped || within < 2 || !stopped && last != size || first < least || first > most {
			t.Errorf("%s: told %d times within the file, from %d to %d bytes: %v", what, within, first, last, err)
		}
	}
	pull("found here", 0, 0, func(o *Options) { o.Seeds = []string{src} })
	try(t, os.RemoveAll(dst))
	written := atomic.Int64{}
	pull("stopped", 0, 0, func(o *Options) {
		o.Connections = 1
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) && written.Add(int64(len(op.Data))) > size/2 {
				return enough
			}
			return nil
		})
	})
	pull("goes on", size/4, size-1, nil)
	sameTree(t, src, dst)
}

func TestHaltStopsAndResumes(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	order := func(o *halt.Orders) error {
		o.Add(halt.Order{ID: halt.NewID(), Scope: halt.Site, Value: "berlin", Reason: "test", By: "us", At: 1})
		return nil
	}
	if _, err := p.open().Halts().Put(t.Context(), p.key, order); err != nil {
		t.Fatal(err)
	}
	_, err := p.pull(dst, func(o *Options) { o.Subject.Site = "berlin" })
	if he := (*halt.Error)(nil); !errors.As(err, &he) {
		t.Fatalf("error %v", err)
	}
	if len(seen(t, dst)) != 0 {
		t.Error("something was applied")
	}
	p.must(dst, func(o *Options) { o.Subject.Site = "paris" })
	if _, err := p.open().Halts().Put(t.Context(), p.key, func(o *halt.Orders) error { o.Active = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	p.must(dst, func(o *Options) { o.Subject.Site = "berlin" })
}

func TestGateStopsMidway(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	stop := errors.New("the window has closed")
	var mu sync.Mutex
	n := 0
	_, err := p.pull(dst, func(o *Options) {
		o.Gate = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 4 {
				return stop
			}
			return nil
		}
	})
	if !errors.Is(err, stop) || len(seen(t, dst)) != 0 {
		t.Fatalf("%v %v", err, seen(t, dst))
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}

func TestPain15_OldHeadIsRefusedAndNothingCached(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	head := filepath.Join(p.dir, "channels", channel, "head")
	old, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	lay(t, src, with(small, func(tr tree) { tr["a.txt"] = "edited" }))
	p.publish(src)
	p.must(dst, nil)
	if err := os.WriteFile(head, old, 0o644); err != nil {
		t.Fatal(err)
	}
	state := snapshot(t, filepath.Join(dst, stateDir))
	if _, err := p.pull(dst, nil); !errors.Is(err, repo.ErrOlder) {
		t.Fatalf("error %v", err)
	}
	if d := cmp.Diff(state, snapshot(t, filepath.Join(dst, stateDir))); d != "" {
		t.Errorf("something was cached:\n%s", d)
	}
}

func snapshot(t *testing.T, dir string) map[string]digest.Digest {
	t.Helper()
	out := map[string]digest.Digest{}
	for p, text := range seen(t, dir) {
		out[p] = digest.Of([]byte(text))
	}
	return out
}

func TestExpiredHeadBlocksOnlyWhatIsNewer(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, with(small, func(tr tree) { tr["a.txt"] = "edited" }))
	p.publish(src)
	later := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) } }
	if _, err := p.pull(dst, later); !errors.Is(err, ErrExpired) {
		t.Fatalf("error %v", err)
	}
	try(t, os.Remove(filepath.Join(dst, "a.txt")))
	r := p.must(dst, func(o *Options) { later(o); o.Release = 1 })
	if !r.Expired || r.Repaired != 1 {
		t.Errorf("%+v", r.Result)
	}
}

func TestForeignRepositoryAndRootKey(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	other := newPress(t, nil)
	other.publish(src)
	if _, err := other.pull(dst, nil); !errors.Is(err, trust.ErrUntrusted) {
		t.Errorf("another repository: %v", err)
	}
	var key trust.Public
	copy(key[:], ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
	if _, err := p.pull(filepath.Join(t.TempDir(), "x"), func(o *Options) { o.RootKey = &key }); !errors.Is(err, trust.ErrUntrusted) {
		t.Errorf("another root key: %v", err)
	}
	if _, err := p.pull(dst, func(o *Options) { o.Channel = "driver" }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another channel: %v", err)
	}
}

func TestDamagedAndMissingPacks(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	packs, err := filepath.Glob(filepath.Join(p.dir, "packs", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(err, packs)
	}
	name := packs[0]
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	for i := 1000; i < len(bad); i += 100_000 {
		bad[i] ^= 0x40
	}
	try(t, os.WriteFile(name, bad, 0o644))
	_, err = p.pull(dst, nil)
	if ce := (*repo.CorruptError)(nil); !errors.As(err, &ce) {
		t.Errorf("damaged: %v", err)
	}
	try(t, os.Remove(name))
	_, err = p.pull(dst, nil)
	if me := (*repo.MissingError)(nil); !errors.As(err, &me) {
		t.Errorf("missing: %v", err)
	}
	if len(seen(t, dst)) != 0 {
		t.Error("something was applied")
	}
	try(t, os.WriteFile(name, good, 0o644))
	p.must(dst, nil)
	sameTree(t, src, dst)
}

func TestPain10_Requests(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	c := testbed.Count(p.store)
	p.store = c
	r := p.must(dst, nil)
	n := c.Reset()
	if limit := n.Got/(12<<20) + 11; n.Requests() > limit || n.Lists+n.Puts+n.Deletes > 0 {
		t.Errorf("first pull: %+v, at most %d", n, limit)
	}
	t.Logf("first pull of %d bytes: %+v", r.BytesFetched, n)
	p.must(dst, nil)
	if n := c.Reset(); n.Requests() > 4 {
		t.Errorf("no-op: %+v", n)
	}
	lay(t, src, with(small, func(tr tree) { tr["a.txt"] = "edited" }))
	p.publish(src)
	c.Reset()
	p.must(dst, nil)
	if n := c.Reset(); n.Requests() > n.Got/(12<<20)+11 {
		t.Errorf("update: %+v", n)
	}
}

// A file that the site changes during the run is never verified.
func TestChangedMeanwhileIsNotVerified(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, after)
	p.publish(src)
	r, err := p.pull(dst, func(o *Options) {
		next := o.OnEvent
		o.OnEvent = func(e Event) {
			if e.Kind == PhaseEvent && e.Phase == PhaseRecord {
				try(t, os.WriteFile(filepath.Join(dst, "img"), []byte("scribble"), 0o644))
				try(t, os.WriteFile(filepath.Join(dst, "keep/same"), []byte("scribble"), 0o644))
			}
			next(e)
		}
	})
	if err != nil || r.Verdict != Incomplete {
		t.Fatalf("%v %v", r.Verdict, err)
	}
	p.must(dst, nil)
	sameTree(t, src, dst)
}

// TestDamagedMemory: a caller that vouches for the root key and the release needs no memory of what was seen: a damaged
// one is replaced. For any other caller it is an error with a remedy.
func TestDamagedMemory(t *testing.T) {
	p, src, dst := dirs(t, tree{"a": "one"})
	rel := p.publish(src)
	p.must(dst, nil)
	memory := filepath.Join(dst, filepath.FromSlash(memoryName))
	whole, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(whole, []byte(`"trust_doc":"`), []byte(`"trust_doc":"AAAA`), 1)
	if bytes.Equal(flipped, whole) {
		t.Fatal("the memory has no trust document")
	}
	key := repo.PublicOf(p.root)
	for name, damaged := range map[string][]byte{"empty": {}, "cut": whole[:len(whole)/2], "flipped": flipped} {
		if err := os.WriteFile(memory, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := p.pull(dst, nil); !errors.As(err, new(*repo.MemoryError)) || !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s, nobody vouches: %v", name, err)
		}
		r := p.must(dst, func(o *Options) { o.RootKey, o.Digest = &key, rel.Digest })
		if len(r.retry) == 0 {
			t.Errorf("%s: it was replaced without a word", name)
		}
		p.must(dst, nil)
	}
}
