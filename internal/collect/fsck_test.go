package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/seal"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// stocked is a repository of two releases with packs of files and a large one
// with chunk lists.
func stocked(t *testing.T, seal []byte) *lab {
	l := newLab(t, nil, seal)
	for i := range 20 {
		l.write(fmt.Sprintf("d%d/f", i), 30<<10, uint64(i))
	}
	l.mustPush()
	l.write("large", 9<<20, 99)
	l.mustPush()
	return l
}

func TestFsckOfAHealthyRepository(t *testing.T) {
	sealKeys(t, func(t *testing.T, seal []byte) {
		l := stocked(t, seal)
		rep := l.healthy()
		if rep.Garbage != 0 || rep.Channels != 1 || rep.Releases != 2 || rep.Packs != 2 || rep.ReadPacks != 2 || rep.Segments != 2 || rep.Chunks < 60 || rep.TrustNumber != 1 {
			t.Errorf("%+v", rep)
		}
	})
}

// TestFsckFindsDamageAnywhere damages every object in every way. fsck must name
// the object and a remedy.
func TestFsckFindsDamageAnywhere(t *testing.T) {
	t.Parallel()
	sealKeys(t, func(t *testing.T, seal []byte) {
		l := stocked(t, seal)
		kinds := map[string]Kind{"trust/": KindTrust, "halt": KindHalt, "index/root": KindRoot, "index/": KindSegment, "packs/": KindPack}
		kindOf := func(key string) Kind {
			if strings.HasSuffix(key, "/head") {
				return KindHead
			}
			if strings.HasPrefix(key, repo.ChannelsPrefix) {
				return KindRelease
			}
			if key == repo.RootKey {
				return KindRoot
			}
			for p, k := range kinds {
				if p != repo.RootKey && strings.HasPrefix(key, p) {
					return k
				}
			}
			return ""
		}
		for _, key := range testbed.Keys(t, l.base, "") {
			if key == "format" || key == "trust/1" {
				continue // without them the repository does not open at all
			}
			good := testbed.ReadObject(t, l.base, key)
			harms := map[string]func(){
				"gone":  func() { testbed.DeleteObject(t, l.base, key) },
				"short": func() { testbed.Truncate(t, l.base, key, int64(len(good)-1)) },
				"empty": func() { testbed.Truncate(t, l.base, key, 0) },
			}
			for i := range 5 {
				at := int64(len(good)) * int64(i) / 5
				harms[fmt.Sprint("flipped at ", at)] = func() { testbed.FlipBit(t, l.base, key, at, 5) }
			}
			for name, harm := range harms {
				harm()
				rep, all := l.fsck(FsckOptions{ReadData: true})
				hit := slices.ContainsFunc(all, func(f Finding) bool {
					return f.Severity == Damage && f.Kind == kindOf(key) && f.Key == key && f.Remedy != ""
				})
				// A missing older release is no finding: gc may have removed
				// it.
				if name == "gone" && strings.HasSuffix(key, "/releases/1") {
					hit = rep.Releases == 1
				}
				if !hit {
					t.Errorf("%s of %s: %v", name, key, all)
				}
				testbed.WriteObject(t, l.base, key, good)
			}
		}
		l.healthy()
	})
}

// TestForgetMissingAndPushHeals: fsck forgets lost and damaged packs and saves
// their good chunks. The next push stores the rest again, from the same machine
// with its stat cache or from another.
func TestForgetMissingAndPushHeals(t *testing.T) {
	for _, machine := range []string{"core", "other"} {
		for name, harm := range map[string]func(testing.TB, bucket.Store, string){
			"gone":    func(t testing.TB, s bucket.Store, key string) { testbed.DeleteObject(t, s, key) },
			"short":   func(t testing.TB, s bucket.Store, key string) { testbed.Truncate(t, s, key, 5<<20) },
			"flipped": func(t testing.TB, s bucket.Store, key string) { testbed.FlipBit(t, s, key, 5<<20, 1) },
		} {
			t.Run(machine+" "+name, func(t *testing.T) {
				t.Parallel()
				sealKeys(t, func(t *testing.T, seal []byte) {
					l := stocked(t, seal)
					keys := testbed.Keys(t, l.base, repo.PacksPrefix)
					for _, key := range keys {
						if len(testbed.ReadObject(t, l.base, key)) > 6<<20 {
							harm(t, l.base, key)
						}
					}
					rep, all := l.fsck(FsckOptions{ReadData: true})
					if rep.Damage == 0 || rep.LostChunks == 0 || !slices.ContainsFunc(all, func(f Finding) bool { return f.Kind == KindFile && f.Path == "large" || f.Kind == KindPage }) {
						t.Fatalf("%+v %v", rep, all)
					}
					rep, _ = l.fsck(FsckOptions{ReadData: true, ForgetMissing: true})
					if rep.Forgotten != 1 || (name != "gone") != (rep.Salvaged > 0) {
						t.Fatalf("%+v", rep)
					}
					res, err := l.push(nil, machine, labChannel)
					if err != nil {
						t.Fatal(err)
					}
					if name == "flipped" && res.New > 2<<20 || res.New == 0 {
						t.Errorf("stored anew: %d of 9 MiB", res.New)
					}
					l.healthy()
				})
			})
		}
	}
}

// TestPushOverALostPack: a push that learns that a pack is gone publishes
// nothing, although the index still names the pack. Its error names the remedy,
// which works.
func TestPushOverALostPack(t *testing.T) {
	t.Parallel()
	for _, change := range []bool{false, true} {
		l := stocked(t, nil)
		for _, key := range testbed.Keys(t, l.base, repo.PacksPrefix) {
			testbed.DeleteObject(t, l.base, key)
		}
		if change {
			l.write("d0/f", 30<<10, 100)
		}
		before := testbed.Keys(t, l.base, "")
		var missing *repo.MissingError
		if res, err := l.push(nil, "other", labChannel); !errors.As(err, &missing) || missing.Pack == "" || !strings.Contains(err.Error(), "--forget-missing") {
			t.Errorf("change %t: %+v %v", change, res, err)
		}
		if after := testbed.Keys(t, l.base, ""); !slices.Equal(before, after) {
			t.Errorf("change %t: it stored something: %q, before %q", change, after, before)
		}
		l.fsck(FsckOptions{ForgetMissing: true})
		if res, err := l.push(nil, "other", labChannel); err != nil || res.New == 0 {
			t.Errorf("change %t: %+v %v", change, res, err)
		}
		// An older release may have lost chunks that the source no longer
		// holds.
		l.clock.advance(2 * l.grace)
		l.mustGC(keepOne)
		l.healthy()
	}
}

// TestRebuildIndex: with the root and every segment gone, fsck rebuilds the
// index from the packs.
func TestRebuildIndex(t *testing.T) {
	t.Parallel()
	sealKeys(t, func(t *testing.T, seal []byte) {
		for name, harm := range map[string]func(*testing.T, *lab){
			"all gone": func(t *testing.T, l *lab) {
				for _, key := range testbed.Keys(t, l.base, repo.IndexPrefix) {
					testbed.DeleteObject(t, l.base, key)
				}
			},
			"root damaged": func(t *testing.T, l *lab) { testbed.FlipBit(t, l.base, repo.RootKey, 20, 0) },
			"segment damaged": func(t *testing.T, l *lab) {
				testbed.FlipBit(t, l.base, testbed.Keys(t, l.base, repo.IndexPrefix)[0], 600, 0)
			},
		} {
			t.Run(name, func(t *testing.T) {
				l := stocked(t, seal)
				harm(t, l)
				if rep, _ := l.fsck(FsckOptions{}); rep.Damage == 0 {
					t.Fatal("no damage is seen")
				}
				if rep, all := l.fsck(FsckOptions{RebuildIndex: true, ReadData: true}); rep.Damage != 0 || rep.Indexed != 2 || rep.Packs != 2 {
					t.Fatalf("%+v %v", rep, all)
				}
				l.write("more", 50<<10, 5)
				var res *push.Result
				if res = l.mustPush(); res.New > 1<<20 {
					t.Errorf("%d bytes were stored anew", res.New)
				}
				l.healthy()
			})
		}
	})
}

// TestRebuildLeavesOutOnlyWhatIsDamaged: the root is replaced only if every
// pack was read or has arrived damaged. gc would delete a pack that was left
// out because of a connection error, a grace period later.
func TestRebuildLeavesOutOnlyWhatIsDamaged(t *testing.T) {
	t.Parallel()
	sealKeys(t, func(t *testing.T, seal []byte) {
		l := stocked(t, seal)
		rebuild := func(s bucket.Store) (*FsckReport, error) {
			t.Helper()
			r, err := l.open(s)
			if err != nil {
				t.Fatal(err)
			}
			return Fsck(t.Context(), r, r.Segments(l.dir("fsck")), FsckOptions{RebuildIndex: true}, nil)
		}
		root := testbed.ReadObject(t, l.base, repo.RootKey)
		for _, kind := range []bucket.Kind{bucket.KindOther, bucket.KindUnreachable, bucket.KindIntegrity, bucket.KindNotExist} {
			for _, begun := range []bool{false, true} {
				rule := testbed.Rule{Op: "get", Prefix: repo.PacksPrefix, Kind: kind, Done: begun}
				if _, err := rebuild(testbed.Fail(l.store, rule)); !errors.Is(err, testbed.ErrFault) || !bytes.Equal(root, testbed.ReadObject(t, l.base, repo.RootKey)) {
					t.Errorf("%v, begun %t: %v, or the root was replaced", kind, begun, err)
				}
			}
		}
		var once sync.Once
		flip := testbed.FlipReads(l.store, func(key string, off, n int64) (at int64, flip bool) {
			if strings.HasPrefix(key, repo.PacksPrefix) && off < 0 {
				once.Do(func() { at, flip = firstTail-1, true }) // the last bytes of a pack
			}
			return at, flip
		})
		if rep, err := rebuild(flip); err != nil || rep.Damage != 0 || rep.Indexed != 2 || flip.Flips() != 1 {
			t.Errorf("damaged on its way, %d times: %+v %v", flip.Flips(), rep, err)
		}
		l.healthy()
		key := testbed.Keys(t, l.base, repo.PacksPrefix)[0]
		good := testbed.ReadObject(t, l.base, key)
		for _, n := range []int64{0, 10, int64(len(good)) / 2} {
			testbed.Truncate(t, l.base, key, n)
			if rep, err := rebuild(nil); err != nil || rep.Damage == 0 || rep.Indexed != 1 {
				t.Errorf("cut to %d bytes: %+v %v", n, rep, err)
			}
			testbed.WriteObject(t, l.base, key, good)
		}
		if rep, err := rebuild(nil); err != nil || rep.Damage != 0 {
			t.Errorf("%+v %v", rep, err)
		}
		l.healthy()
	})
}

// TestFsckThatCannotLook: a check that could not run is an error, never a pass
// and never damage.
func TestFsckThatCannotLook(t *testing.T) {
	l := stocked(t, nil)
	record := testbed.Fail(l.store)
	r, err := l.open(record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fsck(t.Context(), r, r.Segments(l.dir("a")), FsckOptions{ReadData: true}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range record.Calls() {
		if i < 3 {
			continue // opens the repository
		}
		r, err := l.open(testbed.Fail(l.store, testbed.Rule{Nth: i + 1, Kind: bucket.KindDenied}))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Fsck(t.Context(), r, r.Segments(l.dir(fmt.Sprint("b", i))), FsckOptions{ReadData: true}, nil)
		if err == nil || rep.Damage > 0 {
			t.Errorf("call %d (%v) was refused: %+v %v", i+1, record.Calls()[i], rep, err)
		}
	}
}

// TestWhatIsDamage: only data read from the store can be damaged; a full local
// disk is no damage.
func TestWhatIsDamage(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("a page: %w", frame.ErrDamaged), true},
		{seal.ErrOpen, true},
		{trust.ErrUntrusted, true},
		{repo.ErrOlder, true},
		{&repo.MissingError{}, true},
		{&repo.CorruptError{Err: frame.ErrDamaged}, true},
		{errors.New("the release says more files than its pages hold"), true},
		{&bucket.Error{Kind: bucket.KindNotExist, Err: syscall.ENOENT}, true},
		{&bucket.Error{Kind: bucket.KindIntegrity, Err: syscall.EIO}, true},
		{&bucket.Error{Kind: bucket.KindUnreachable, Err: frame.ErrDamaged}, false},
		{fmt.Errorf("keep a local copy of the index: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}), false},
		{&os.LinkError{Op: "rename", Err: syscall.EACCES}, false},
		{fmt.Errorf("sync: %w", syscall.EIO), false},
		{&frame.NewerError{}, false},
		{context.Canceled, false},
	} {
		if got := isStoredFault(tt.err); got != tt.want {
			t.Errorf("%#v: %t", tt.err, got)
		}
	}
}

// TestNewerRootStays: a root that a newer program wrote is not damaged, and is
// not replaced.
func TestNewerRootStays(t *testing.T) {
	l := stocked(t, nil)
	b := testbed.ReadObject(t, l.base, repo.RootKey)
	b[frame.HeaderSize-1]++ // its version
	sum := digest.Of(b[:len(b)-digest.Size])
	testbed.WriteObject(t, l.base, repo.RootKey, append(b[:len(b)-digest.Size], sum[:]...))
	for _, rebuild := range []bool{false, true} {
		r, err := l.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		var newer *frame.NewerError
		rep, err := Fsck(t.Context(), r, r.Segments(l.dir("fsck")), FsckOptions{RebuildIndex: rebuild}, nil)
		if !errors.As(err, &newer) || rep.Damage != 0 || !bytes.Equal(b, testbed.ReadObject(t, l.base, repo.RootKey)) {
			t.Errorf("rebuild %t: %+v %v, or it was replaced", rebuild, rep, err)
		}
	}
}

// TestFsckNamesGarbage: fsck reports harmless objects as garbage, not as
// damage.
func TestFsckNamesGarbage(t *testing.T) {
	l := stocked(t, nil)
	testbed.WriteObject(t, l.base, "notes.txt", []byte("x"))
	testbed.WriteObject(t, l.base, "channels/package/notes", []byte("x"))
	testbed.WriteObject(t, l.base, "packs/ab/tmp", []byte("x"))
	l.write("new", 100<<10, 1234)
	if _, err := l.push(testbed.Fail(l.store, testbed.Rule{Op: "put", Prefix: "channels/package/head", Dead: true}), "core", labChannel); err == nil {
		t.Fatal("the push lived")
	}
	rep, all := l.fsck(FsckOptions{ReadData: true})
	if rep.Damage != 0 || rep.Garbage != 4 {
		t.Errorf("%+v %v", rep, all)
	}
}
