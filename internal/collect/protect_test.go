package collect

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/index"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// dying makes a repository in which no release needs the pack of file "a" any
// more, so that gc may condemn it.
func dying(t *testing.T) *lab {
	l := newLab(t, nil, nil)
	l.write("a", 1<<20, 1)
	l.mustPush()
	l.clock.advance(l.grace)
	l.remove("a")
	l.write("b", 1<<20, 2)
	l.mustPush()
	l.clock.advance(l.grace)
	return l
}

var keepOne = Options{Keep: 1}

// A push that begins after a pack was condemned stores its chunks again,
// because gc may delete the pack before the push ends.
func TestPushDoesNotRelyOnCondemnedPacks(t *testing.T) {
	l := dying(t)
	l.mustGC(keepOne)
	l.clock.advance(l.grace * 9 / 10)
	l.write("a", 1<<20, 1)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/releases/3", before: func() {
		l.clock.advance(l.grace * 2 / 10)
		if rep := l.mustGC(keepOne); rep.Deleted != 1 {
			t.Errorf("gc found nothing to delete: %+v", rep)
		}
	}}
	if res, err := l.push(s, "core", labChannel); err != nil || res.New < 1<<20 {
		t.Fatalf("%+v %v", res, err)
	}
	l.healthy()
}

// A push that runs longer than half the grace gives up: gc may have deleted
// packs that it relied on.
func TestPushGivesUpInTime(t *testing.T) {
	l := dying(t)
	l.write("a", 1<<20, 1)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/releases/3", before: func() {
		l.mustGC(keepOne)
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(keepOne); rep.Deleted != 1 {
			t.Errorf("gc found nothing to delete: %+v", rep)
		}
	}}
	if _, err := l.push(s, "core", labChannel); !errors.Is(err, repo.ErrTooLong) {
		t.Fatalf("%v", err)
	}
	l.healthy()
	if res := l.mustPush(); res.New < 1<<20 {
		t.Fatalf("%+v", res)
	}
	l.healthy()
}

// gc deletes packs that a push stored long ago and that no segment names. If
// that push then resumes, it must not name them.
func TestNoSegmentNamesADeletedPack(t *testing.T) {
	for _, at := range []string{"before the segment is stored", "between the root's read and its write"} {
		t.Run(at, func(t *testing.T) {
			l := newLab(t, nil, nil)
			l.write("a", 1<<20, 1)
			l.mustPush()
			l.write("b", 1<<20, 2)
			key := "index/"
			if strings.HasPrefix(at, "between") {
				key = repo.RootKey
			}
			s := &gate{Store: l.store, key: key, before: func() {
				l.clock.advance(2 * l.grace)
				if rep := l.mustGC(keepOne); rep.Leftovers == 0 {
					t.Errorf("gc found no leftover: %+v", rep)
				}
			}}
			if _, err := l.push(s, "core", labChannel); !errors.Is(err, repo.ErrTooLong) {
				t.Errorf("%v", err)
			}
			l.healthy()
			l.mustPush()
			l.healthy()
		})
	}
}

// A push that was frozen after it stored its release, and resumes within the
// grace, still finds everything that its release needs.
func TestGCMarksReleasesThatWaitForTheirHead(t *testing.T) {
	l := dying(t)
	l.write("a", 1<<20, 1)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/head", before: func() {
		l.clock.advance(l.grace * 4 / 10)
		if rep := l.mustGC(keepOne); rep.Condemned != 0 || rep.Waiting != 1 {
			t.Errorf("%+v", rep)
		}
		l.clock.advance(l.grace / 2)
		l.mustGC(keepOne)
	}}
	if _, err := l.push(s, "core", labChannel); err != nil {
		t.Fatal(err)
	}
	l.clock.advance(2 * l.grace)
	l.mustGC(keepOne)
	l.healthy()
}

// Two releases wait for their head, and one lacks a page. The pages that it
// shares with the other are marked all the same, and the missing page does not
// count as lost.
func TestGCMarksWhatABrokenReleaseShares(t *testing.T) {
	l := dying(t)
	l.write("c", 1<<20, 3)
	if _, err := l.push(testbed.Fail(l.store, testbed.Rule{Op: "put", Prefix: repo.HeadKey(labChannel), Nth: 1, Dead: true}), "core", labChannel); !errors.Is(err, testbed.ErrFault) {
		t.Fatal(err)
	}
	r, err := l.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := r.StoredRelease(t.Context(), labChannel, 3, trust.ReleaseDigest{})
	if err != nil {
		t.Fatal(err)
	}
	broken := good.Release
	broken.Pages = append(slices.Clone(broken.Pages), manifest.PageRef{ID: digest.Of([]byte("nowhere")), Entries: 1, First: "z"})
	broken.Totals.Files++
	for number, rel := range map[trust.ReleaseNumber]*manifest.Release{3: &broken, 4: &good.Release} {
		payload, err := manifest.EncodeRelease(rel)
		if err != nil {
			t.Fatal(err)
		}
		b, err := trust.Sign(l.key, trust.Subject{Kind: manifest.ReleaseKind, Version: manifest.ReleaseVersion, Repo: r.ID(), Scope: labChannel, Number: uint64(number)}, payload)
		if err != nil {
			t.Fatal(err)
		}
		testbed.WriteObject(t, l.store, repo.ReleaseKey(labChannel, number), b)
	}
	l.clock.advance(l.grace * 6 / 10) // the packs may be condemned, the releases not deleted
	if rep := l.mustGC(Options{}); rep.Waiting != 2 || rep.Condemned != 0 || rep.Lost != 0 {
		t.Errorf("%+v", rep)
	}
}

// A push that was frozen there for longer finds a different head if gc has the
// release key.
func TestGCFencesOffFrozenPushes(t *testing.T) {
	l := dying(t)
	l.write("a", 1<<20, 1)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/head", before: func() {
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(Options{Keep: 1, Key: l.key}); rep.Abandoned != 0 {
			t.Errorf("%+v", rep)
		}
	}}
	if _, err := l.push(s, "core", labChannel); !errors.Is(err, repo.ErrTooLong) {
		t.Fatalf("%v", err)
	}
	l.healthy()
	l.mustPush()
	l.healthy()
}

// deadAbove is a repository with a release above the head, whose push died a
// while ago.
func deadAbove(t *testing.T) *lab {
	t.Helper()
	l := dying(t)
	l.write("a", 1<<20, 1)
	dead := testbed.Fail(l.store, testbed.Rule{Op: "put", Prefix: repo.HeadKey(labChannel), Nth: 1, Dead: true})
	if _, err := l.push(dead, "core", labChannel); !errors.Is(err, testbed.ErrFault) {
		t.Fatal(err)
	}
	l.clock.advance(2 * l.grace)
	return l
}

// gc signs only the head that it has read, not one that another writer has
// stored since: it would vouch for a head that it has not seen.
func TestGCSignsOnlyTheHeadThatItHasRead(t *testing.T) {
	l := deadAbove(t)
	var head []byte
	l.mustGC(Options{Keep: 1, Key: l.key, OnEvent: func(e Event) {
		if e.Phase == "sweep" {
			l.mustPush()
			head = testbed.ReadObject(t, l.store, repo.HeadKey(labChannel))
			l.clock.advance(time.Minute) // another signature would expire later
		}
	}})
	if !bytes.Equal(head, testbed.ReadObject(t, l.store, repo.HeadKey(labChannel))) {
		t.Error("gc has signed another head than it had read")
	}
	l.healthy()
}

// If a number above the head became free, the next push would take it. Another
// gc that has listed its old holder would then delete that push's release.
func TestTwoGCsAndANumberThatIsTakenAgain(t *testing.T) {
	l := deadAbove(t)
	pushed := trust.ReleaseNumber(0)
	_, err := l.gc(nil, Options{Keep: 1, OnEvent: func(e Event) {
		if e.Phase != "sweep" || pushed > 0 {
			return
		}
		r, err := l.open(nil)
		if err == nil {
			_, err = GC(t.Context(), r, r.Segments(l.dir("other")), Options{Keep: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		pushed = l.mustPush().Number
	}})
	if pushed == 0 || err != nil && !errors.Is(err, ErrBusy) {
		t.Errorf("release %d was pushed: %v", pushed, err)
	}
	l.healthy()
	l.clock.advance(2 * l.grace)
	l.mustGC(Options{Keep: 1}) // below the head it goes
	r, err := l.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, _, err := r.Stored(t.Context()); err != nil || len(all) != 1 || len(all[0].Releases) != 1 || all[0].Releases[0].Number != pushed {
		t.Errorf("%+v, %v", all, err)
	}
}

// A push finds a number after any number of dead pushes in a row.
func TestPushPastManyDeadOnes(t *testing.T) {
	l := dying(t)
	for n := range trust.ReleaseNumber(100) {
		testbed.WriteObject(t, l.store, repo.ReleaseKey(labChannel, 3+n), []byte("whatever"))
	}
	l.write("a", 1<<20, 1)
	if res := l.mustPush(); res.Number != 103 {
		t.Errorf("it is release %d", res.Number)
	}
	l.clock.advance(2 * l.grace)
	if rep := l.mustGC(Options{Keep: 1}); rep.Expired+rep.Abandoned != 102 {
		t.Errorf("%+v", rep)
	}
	l.healthy()
}

// A head that was only signed again is no conflict.
func TestResignDuringAPush(t *testing.T) {
	l := dying(t)
	l.write("a", 1<<20, 3)
	s := &gate{Store: l.store, key: "channels/" + labChannel + "/head", before: func() {
		r, err := l.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Publisher(l.key).Resign(t.Context(), labChannel); err != nil {
			t.Fatal(err)
		}
	}}
	if res, err := l.push(s, "core", labChannel); err != nil || res.Number != 3 {
		t.Fatalf("%+v %v", res, err)
	}
	l.healthy()
}

// gc deletes nothing when a manifest cannot be read.
func TestGCStopsAtAnUnreadablePage(t *testing.T) {
	l := dying(t)
	l.mustGC(keepOne) // condemns
	l.clock.advance(2 * l.grace)
	r, err := l.open(nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, err := r.Head(t.Context(), labChannel)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := r.Release(t.Context(), labChannel, head.Number, head.Release)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := x.Locate(t.Context(), rel.PageIDs())
	if err != nil {
		t.Fatal(err)
	}
	key := repo.PackKey(x.Packs()[found[0].Pack].Digest)
	good := testbed.ReadObject(t, l.base, key)
	for name, harm := range map[string]func(){
		"altered": func() { testbed.FlipBit(t, l.base, key, int64(found[0].At.Block)+9, 3) },
		"gone":    func() { testbed.DeleteObject(t, l.base, key) },
	} {
		harm()
		before := testbed.Keys(t, l.base, "")
		if _, err := l.gc(nil, keepOne); err == nil || !strings.Contains(err.Error(), "release 2") {
			t.Errorf("%s: %v", name, err)
		}
		if after := testbed.Keys(t, l.base, ""); len(after) != len(before) {
			t.Errorf("%s: %d objects were deleted", name, len(before)-len(after))
		}
		testbed.WriteObject(t, l.base, key, good)
	}
	if rep := l.mustGC(keepOne); rep.Deleted != 1 {
		t.Errorf("%+v", rep)
	}
	l.healthy()
}

// If gc cleans up after a push that died when it had stored everything, the
// next push must not believe that its chunks are stored.
func TestPushAfterADeadPushAndGC(t *testing.T) {
	l := newLab(t, nil, nil)
	l.write("b", 1<<20, 2)
	l.mustPush()
	l.write("a", 1<<20, 1)
	if _, err := l.push(testbed.Fail(l.store, testbed.Rule{Op: "put", Prefix: "channels/", Nth: 1, Dead: true}), "core", labChannel); !errors.Is(err, testbed.ErrFault) {
		t.Fatal(err)
	}
	for range 3 {
		l.clock.advance(2 * l.grace)
		l.mustGC(keepOne)
	}
	if rep := l.healthy(); rep.Garbage != 0 {
		t.Fatalf("%+v", rep)
	}
	l.mustPush()
	l.healthy()
}

// While the index lacks chunks that a release needs, they may be in a pack that
// it does not name, or calls dead. gc then deletes no pack.
func TestGCDeletesNoPackWhileChunksAreLost(t *testing.T) {
	for _, condemned := range []bool{false, true} {
		l := newLab(t, nil, nil)
		l.write("a", 20<<20, 1) // one pack of content only, and one with the manifest
		l.mustPush()
		r, err := l.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := r.Index(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		known, err := r.Segments(l.dir("look")).Known(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		lost := slices.MaxFunc(slices.Collect(maps.Values(known.Packs())), func(a, b index.Pack) int { return int(a.Size) - int(b.Size) }).Digest
		if err := known.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Segments(l.dir("look")).Forget(t.Context(), map[digest.Digest]bool{lost: true}, func(*index.Root) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if condemned {
			if _, err := r.ReplaceRoot(t.Context(), func(root *index.Root, _ clock.Store) error {
				root.Condemned = []index.Condemned{{Pack: lost, Since: l.clock.Now().Unix()}}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		l.clock.advance(2 * l.grace)
		for _, dry := range []bool{true, false} {
			if rep := l.mustGC(Options{DryRun: dry}); rep.Lost == 0 || rep.Deleted+rep.Leftovers != 0 {
				t.Errorf("condemned %t, dry %t: %+v", condemned, dry, rep)
			}
		}
		l.fsck(FsckOptions{RebuildIndex: true})
		l.healthy()
	}
}

// revoke replaces the lab's release key, revokes the old one, and returns the
// new one.
func (l *lab) revoke() ed25519.PrivateKey {
	l.t.Helper()
	r, err := l.open(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
	doc := &trust.Doc{Keys: []trust.Key{{Public: repo.PublicOf(l.key), Roles: trust.AllRoles}, {Public: repo.PublicOf(next), Roles: trust.AllRoles}}}
	err = r.Trust().Put(l.t.Context(), l.root, doc)
	if err == nil {
		_, err = r.Halts().Put(l.t.Context(), next, func(*halt.Orders) error { return nil })
	}
	if err == nil {
		_, err = r.Publisher(next).Resign(l.t.Context(), labChannel)
	}
	if err == nil {
		doc.Keys[0].Status = trust.Revoked
		err = r.Trust().Put(l.t.Context(), l.root, doc)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return next
}

// A channel has lost its head, and its releases cannot show it, because their
// key was revoked or they are damaged. gc must not treat it as a channel whose
// first push died. It refuses until a person pushes or deletes by hand.
func TestGCLeavesABeheadedChannelOfWhichNothingCanBeTold(t *testing.T) {
	release := func(n trust.ReleaseNumber) string { return repo.ReleaseKey(labChannel, n) }
	for name, harm := range map[string]func(*lab){
		"revoked": func(l *lab) { l.key = l.revoke() },
		"damaged": func(l *lab) {
			for n := range trust.ReleaseNumber(3) {
				testbed.Truncate(l.t, l.store, release(n+1), 10)
			}
		},
	} {
		l := newLab(t, nil, nil)
		for i := range 3 {
			l.write("a", 1<<20, uint64(i))
			l.mustPush()
		}
		seen, err := l.open(nil)
		if err == nil {
			_, err = seen.Head(t.Context(), labChannel)
		}
		if err != nil {
			t.Fatal(err)
		}
		harm(l)
		testbed.DeleteObject(t, l.store, repo.HeadKey(labChannel))
		l.clock.advance(2 * l.grace)
		before := testbed.Keys(t, l.base, "")
		if rep, err := l.gc(nil, keepOne); !errors.Is(err, errBeheaded) || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%s: %+v %v", name, rep, err)
		}
		if after := testbed.Keys(t, l.base, ""); len(after) != len(before) {
			t.Errorf("%s: %d objects were deleted", name, len(before)-len(after))
		}
		if rep, _ := l.fsck(FsckOptions{}); rep.Damage == 0 {
			t.Errorf("%s: fsck finds nothing", name)
		}
		// A machine that remembers the head gets the remedy.
		memory := seen.Memory()
		again, err := repo.Open(t.Context(), l.store, repo.Options{Memory: &memory, Now: l.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.PushHead(t.Context(), labChannel); err == nil || !strings.Contains(err.Error(), "or delete "+release(3)+", and push") {
			t.Errorf("%s: %v", name, err)
		}
		testbed.DeleteObject(t, l.store, release(3))
		res, err := push.Run(t.Context(), again, l.src, push.Options{Channel: labChannel, Key: l.key, State: l.dir("core"), Now: l.clock.Now})
		if err != nil || res.Number != 4 {
			t.Fatalf("%s: %+v %v", name, res, err)
		}
		l.clock.advance(2 * l.grace)
		if rep := l.mustGC(keepOne); rep.Expired != 2 {
			t.Errorf("%s: %+v", name, rep)
		}
		l.healthy()
	}
}

// A temporary read error of a release proves nothing about its channel.
func TestGCEndsWhereABeheadedChannelCannotBeRead(t *testing.T) {
	l := newLab(t, nil, nil)
	for i := range 2 {
		l.write("a", 1<<20, uint64(i))
		l.mustPush()
	}
	testbed.DeleteObject(t, l.store, repo.HeadKey(labChannel))
	l.clock.advance(2 * l.grace)
	for _, kind := range []bucket.Kind{bucket.KindOther, bucket.KindUnreachable, bucket.KindIntegrity, bucket.KindDenied} {
		broken := testbed.Fail(l.store, testbed.Rule{Op: "get", Prefix: repo.ChannelsPrefix + labChannel + "/releases/", Kind: kind})
		if rep, err := l.gc(broken, keepOne); !errors.Is(err, testbed.ErrFault) || errors.Is(err, errBeheaded) {
			t.Errorf("%v: %+v %v", kind, rep, err)
		}
	}
}
