package pains

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/collect"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// An attacker puts an old, signed and complete release back into the bucket, with a driver that has a hole fixed since.
// Sites that have seen a newer release refuse it, and keep nothing of it.
func TestPain15_ReplayedRelease(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	lay(t, w.src, tree{"driver.sys": []byte("with a hole"), "a": noise(1, 100_000), "only in 1": noise(2, 1000)})
	w.mustPush(nil)
	first := map[string][]byte{}
	for _, key := range testbed.Keys(t, w.store, "") {
		first[key] = testbed.ReadObject(t, w.store, key)
	}
	late, site := w.site(), w.site() // late has seen release 1 only
	w.arrive(late)
	put(t, w.src, "driver.sys", []byte("without"))
	must(t, os.Remove(filepath.Join(w.src, "only in 1")))
	w.mustPush(func(o *publishOptions) { o.AllowDeletes = true })
	w.arrive(site)
	second := map[string][]byte{}
	for _, key := range testbed.Keys(t, w.store, "") {
		second[key] = testbed.ReadObject(t, w.store, key)
	}
	put(t, w.src, "driver.sys", []byte("without, once more"))
	w.mustPush(nil)
	w.arrive(site)

	head, release2, release3 := repo.HeadKey(channel), repo.ReleaseKey(channel, 2), repo.ReleaseKey(channel, 3)
	_, err := repo.Init(t.Context(), w.store, repo.InitOptions{Root: w.root, Release: w.key})
	if !errors.Is(err, repo.ErrExists) {
		t.Errorf("init of a repository that is there: %v", err)
	}
	newest := map[string][]byte{}
	for _, key := range testbed.Keys(t, w.store, "") {
		newest[key] = testbed.ReadObject(t, w.store, key)
	}
	for _, tt := range []struct {
		name   string
		replay map[string][]byte
		want   error
	}{
		{"the head of release 1", map[string][]byte{head: first[head]}, repo.ErrOlder},
		{"the head of release 2", map[string][]byte{head: second[head]}, repo.ErrOlder},
		{"the whole bucket", first, repo.ErrOlder},
		{"no head", map[string][]byte{head: nil}, repo.ErrOlder},
		{"release 2 as release 3", map[string][]byte{release3: newest[release2]}, trust.ErrUntrusted},
		{"release 2 as release 3, head too", map[string][]byte{head: second[head], release3: newest[release2]}, repo.ErrOlder},
		{"the halt object as head", map[string][]byte{head: newest["halt"]}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.t = t
			replace(t, &w, tt.replay)
			defer replace(t, &w, newest)
			// There is work to do, so that a pull that trusted the head would fetch.
			must(t, os.RemoveAll(filepath.Join(site, "a")))
			kept, state := untouched(t, site), cached(t, site)
			p, err := w.pull(site, nil)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if p.Verdict == apply.Verified {
				t.Error("verified")
			}
			kept()
			same(t, state, cached(t, site))
		})
	}
	w.arrive(site)
	w.arrive(late)
}

// A head of another channel, or of another repository with the same keys, is not valid here.
func TestPain15_ForeignHead(t *testing.T) {
	w, other := newWorld(t, plan{}), newWorld(t, plan{}) // the same keys sign both
	for _, x := range []*world{w, other} {
		lay(t, x.src, tree{"a": noise(1, 1000)})
		x.mustPush(nil)
	}
	site := w.site()
	w.arrive(site)
	kept := untouched(t, site)
	put(t, w.src, "b", []byte("of another channel"))
	_, err := w.push(func(o *publishOptions) { o.Channel = "driver" })
	must(t, err)
	good := testbed.ReadObject(t, w.store, repo.HeadKey(channel))
	mine := map[string][]byte{}
	for _, key := range testbed.Keys(t, w.store, "") {
		mine[key] = testbed.ReadObject(t, w.store, key)
	}
	for name, b := range map[string][]byte{
		"of another channel":    testbed.ReadObject(t, w.store, repo.HeadKey("driver")),
		"of another repository": testbed.ReadObject(t, other.store, repo.HeadKey(channel)),
	} {
		testbed.WriteObject(t, w.store, repo.HeadKey(channel), b)
		if _, err := w.pull(site, nil); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a head %s: %v", name, err)
		}
		kept()
	}
	// Copy the whole other repository except the format object, which holds its id: it is consistent, and signed with
	// the right keys.
	for _, key := range testbed.Keys(t, other.store, "") {
		if key != "format" {
			testbed.WriteObject(t, w.store, key, testbed.ReadObject(t, other.store, key))
		}
	}
	for _, dir := range []string{site, w.site()} {
		if _, err := w.pull(dir, nil); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("another repository's objects: %v", err)
		}
	}
	kept()
	for _, key := range testbed.Keys(t, other.store, "") {
		if b := mine[key]; b != nil {
			testbed.WriteObject(t, w.store, key, b)
		}
	}
	testbed.WriteObject(t, w.store, repo.HeadKey(channel), good)
	if p, err := w.pull(site, nil); err != nil || !p.NoOp {
		t.Errorf("%v", err)
	}
}

// replace stores these objects under their keys; nil removes one.
func replace(t testing.TB, w *world, objects map[string][]byte) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if objects[key] != nil {
			testbed.WriteObject(t, w.store, key, objects[key])
		} else {
			must(t, w.store.Delete(t.Context(), key))
		}
	}
}

// cached returns a site's cached data of a repository: pages, staged files, the catalogue, and the last accepted head.
func cached(t testing.TB, site string) seen {
	t.Helper()
	all := look(t, filepath.Join(site, manifest.StateDir))
	for name, what := range all {
		all[name] = strings.SplitN(what, ",", 2)[0] // a lock file's time may change
	}
	return all
}

// One object is lost from the bucket, each in turn. fsck must name it before a user needs it. A site that needs it gets
// an error that names it, and keeps its files. If another push can repair the loss, it does.
func TestPain15_MissingObject(t *testing.T) {
	for name, secret := range map[string][]byte{"plain": nil, "encrypted": noise(9, 32)} {
		t.Run(name, func(t *testing.T) {
			w, template := releasesOfEverything(t, secret)
			for _, key := range testbed.Keys(t, w.store, "") {
				b := testbed.ReadObject(t, w.store, key)
				testbed.DeleteObject(t, w.store, key)
				found, err := w.fsck()
				// gc removes releases before the head, so a missing one is not damage.
				if !named(found, err, key) && !strings.HasSuffix(key, "/releases/1") {
					t.Errorf("%s is gone: fsck does not name it: %v %v", key, found, err)
				}
				for _, from := range []string{"", template} {
					w.tryDamaged(key+" is gone", from, key)
				}
				testbed.WriteObject(t, w.store, key, b)
			}
			w.arrive(w.site())
		})
	}
}

// No reader of manifests misses a pack that holds only content: fsck must name it nevertheless, even without reading
// all data.
func TestPain15_LostContent(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"disk.img": noise(1, 40<<20), "small": noise(2, 10)})
	w.mustPush(nil)
	packs := testbed.Keys(t, w.store, repo.PacksPrefix)
	if len(packs) < 2 {
		t.Fatalf("there are only %d packs: one holds the manifest too", len(packs))
	}
	for _, key := range packs {
		b := testbed.ReadObject(t, w.store, key)
		testbed.DeleteObject(t, w.store, key)
		for _, read := range []bool{false, true} {
			if found, err := w.check(collect.FsckOptions{ReadData: read}); !named(found, err, key) {
				t.Errorf("%s is gone: fsck, data read: %v, does not name it: %v %v", key, read, found, err)
			}
		}
		testbed.WriteObject(t, w.store, key, b)
	}
}

// A lost pack is repaired as the remedy says: forget it, push again.
func TestPain15_LostPackIsHealed(t *testing.T) {
	w, template := releasesOfEverything(t, nil)
	w.ahead = time.Hour // so that the Core trusts its stat cache, by which everything is stored
	w.mustPush(nil)
	if again := w.mustPush(nil); again.Read != 0 {
		t.Fatalf("a push of the same files read %d bytes: the stat cache is not in use", again.Read)
	}
	for _, key := range testbed.Keys(t, w.store, repo.PacksPrefix) {
		testbed.DeleteObject(t, w.store, key)
	}
	if _, err := w.pull(w.site(), nil); err == nil {
		t.Fatal("pulled without packs")
	}
	w.forgetMissing()
	w.mustPush(nil)
	w.arrive(w.site())
	site := w.site()
	copyTree(t, template, site)
	w.arrive(site)
	if found, err := w.fsck(); err != nil {
		t.Error(err)
	} else {
		for _, f := range found {
			// Release 1 is lost for good: its content no longer exists anywhere.
			if f.Release != 1 {
				t.Errorf("still: %v", f)
			}
		}
	}
}

// The head is lost. This must not look like a repository without a finished push: gc keeps everything, fsck names the
// head, and the next push makes a head that sites accept.
func TestPain15_LostHead(t *testing.T) {
	for name, secret := range map[string][]byte{"plain": nil, "encrypted": noise(9, 32)} {
		for _, remembered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, remembered %v", name, remembered), func(t *testing.T) {
				w, template := releasesOfEverything(t, secret)
				site := w.site()
				w.arrive(site)
				head := headKey(t, w)
				testbed.DeleteObject(t, w.store, head)
				if !remembered {
					w.memory = nil
				}
				before := testbed.Keys(t, w.store, "")
				for range 2 { // condemn, and delete
					if err := w.gc(365 * 24 * time.Hour); err == nil {
						t.Error("gc found nothing wrong")
					}
				}
				if after := testbed.Keys(t, w.store, ""); !slices.Equal(before, after) {
					t.Errorf("gc deleted something: %v, of %v", after, before)
				}
				if !remembered {
					return // without the Core's memory, the operator restores the head from a site's copy, or by hand
				}
				p := w.mustPush(nil) // nothing has changed in the source
				if p.Unchanged || p.Number != 3 || p.Sent > 64<<10 {
					t.Errorf("the push made release %d, unchanged: %v, %d bytes sent", p.Number, p.Unchanged, p.Sent)
				}
				w.arrive(site)
				w.arrive(template)
				if found, err := w.fsck(); err != nil || len(found) > 0 {
					t.Errorf("fsck: %v %v", found, err)
				}
			})
		}
	}
}

// A bucket is restored from an old copy: sites refuse it, and the next push repairs it with a release number that no
// site has seen.
func TestPain15_RestoredBucket(t *testing.T) {
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"a": noise(1, 10_000)})
	w.mustPush(nil)
	old := testbed.ReadObject(t, w.store, headKey(t, w))
	site := w.site()
	for n := range 3 {
		put(t, w.src, "a", noise(uint64(10+n), 10_000))
		w.mustPush(nil)
	}
	w.arrive(site)
	testbed.WriteObject(t, w.store, headKey(t, w), old)
	for n := 2; n <= 4; n++ {
		testbed.DeleteObject(t, w.store, repo.ReleaseKey(channel, trust.ReleaseNumber(n)))
	}
	kept := untouched(t, site)
	if _, err := w.pull(site, nil); !errors.Is(err, repo.ErrOlder) {
		t.Errorf("pull of a restored bucket: %v", err)
	}
	kept()
	if p := w.mustPush(nil); p.Number != 5 {
		t.Errorf("the push made release %d, want 5", p.Number)
	}
	w.arrive(site)
}

func headKey(t testing.TB, w *world) string {
	t.Helper()
	for _, key := range testbed.Keys(t, w.store, repo.ChannelsPrefix) {
		if strings.HasSuffix(key, "/head") {
			return key
		}
	}
	t.Fatal("no head")
	return ""
}

// named reports whether fsck names an object, in a finding or in its error.
func named(found []finding, err error, key string) bool {
	for _, f := range found {
		if f.Key == key {
			return true
		}
	}
	return err != nil && (strings.Contains(err.Error(), key) || key == "format" && (errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "frmt")))
}
