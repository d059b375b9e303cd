package pains

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

// A store holds an object from a newer nightferry. Whichever object it is, the error must give both version numbers.
func TestBadInput_NewerFormat(t *testing.T) {
	w := newWorld(t, plan{params: smallChunks})
	lay(t, w.src, older())
	w.mustPush(nil)
	for _, key := range []string{"format", "trust/1", "halt", repo.HeadKey(channel), repo.ReleaseKey(channel, 1), repo.RootKey} {
		good := testbed.ReadObject(t, w.store, key)
		changed := append([]byte(nil), good...)
		binary.BigEndian.PutUint16(changed[6:], 7)
		testbed.WriteObject(t, w.store, key, changed)
		err := w.refused(key)
		var newer *frame.NewerError
		switch {
		case key == repo.ReleaseKey(channel, 1): // a digest that differs from the head's is reported first
		case !errors.As(err, &newer) || newer.Version != 7 || newer.Supported != 1:
			t.Errorf("%s of version 7: %v", key, err)
		default:
			says(t, err, "7", "1", "upgrade")
		}
		testbed.WriteObject(t, w.store, key, good)
	}
	w.arrive(w.site())
}

// A signed release holds names that lead out of the target, or to something other than a file. No file may be created
// anywhere.
func TestBadInput_PathsThatLeave(t *testing.T) {
	content := []byte("owned")
	for _, path := range []string{
		"../escaped", "a/../../escaped", "..", ".", "", "/tmp/nightferry-escaped", "a//b", "a/", "./a", `..\escaped`, `\\server\share\x`,
		"C:", "C:/Windows/x", "C:x", "a:stream", "a/b:$DATA", "a\x00b", "a\nb", "nul", "dir/CON.txt", "com¹", "trailing.", "trailing /x", "..../x", "a*b", "a<b",
		".nightferry/memory.json", ".NIGHTFERRY/journal",
	} {
		w := newWorld(t, plan{})
		f := newForger(w)
		f.store(content)
		all := within(file(path, content))
		f.publish("a", all...)
		var bad *manifest.PathError
		if err := w.refused(path); !errors.As(err, &bad) {
			t.Errorf("%q: %v, want a PathError", path, err)
		}
		// In the release itself.
		w = newWorld(t, plan{})
		f = newForger(w)
		f.store(content)
		f.publish(path, file("a", content))
		if err := w.refused("first " + path); !errors.As(err, &bad) {
			t.Errorf("first %q: %v, want a PathError", path, err)
		}
	}
	// Two names with one alias, a file that is also a folder, and other invalid trees.
	setuid := file("a", content)
	setuid.Mode = 0o4755
	for what, entries := range map[string][]anyEntry{
		"twins by case":     {file("README", content), file("readme", content)},
		"file and folder":   {file("a", content), file("a/b", content)},
		"no folder":         {file("a/b", content)},
		"the same twice":    {file("a", content), file("a", content)},
		"out of order":      {file("b", content), file("a", content)},
		"a kind of its own": {{Path: "a", Kind: 2, MTime: 1}},
		"setuid":            {setuid},
	} {
		w := newWorld(t, plan{})
		f := newForger(w)
		f.store(content)
		f.publish(entries[0].Path, entries...)
		var alias *manifest.AliasError
		if err := w.refused(what); !errors.Is(err, frame.ErrDamaged) && !errors.As(err, &alias) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A tree that differs from the tree digest in the release.
	w := newWorld(t, plan{})
	f := newForger(w)
	f.store(content)
	f.release(&manifest.Release{Totals: manifest.Totals{Files: 1, Bytes: int64(len(content))}, Tree: digest.Of([]byte("another tree")),
		Pages: []manifest.PageRef{{ID: f.store(f.page(file("a", content)))[0], First: "a", Entries: 1}}})
	if err := w.refused("another tree", "tree"); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("another tree: %v", err)
	}
	// The same forger's release with good names is accepted, so the names were the reason for the refusal.
	w = newWorld(t, plan{})
	f = newForger(w)
	f.store(content)
	f.publish("dir", within(file("dir/a", content))...)
	site := w.site()
	if p, err := w.pull(site, nil); err != nil || p.Verdict != apply.Verified {
		t.Errorf("a good tree: %q %v", p.Verdict, err)
	}
}

// An attacker with write access plants a link in the target's path: it must not redirect any write or delete.
func TestBadInput_PlantedLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symlink takes a right that tests do not have; internal/durable tests junctions")
	}
	w := newWorld(t, plan{})
	before := tree{"dir/sub/a": noise(1, 1000), "dir/sub/gone": noise(2, 1000), "file": noise(3, 1000)}
	lay(t, w.src, before)
	w.mustPush(nil)
	template := w.site()
	w.arrive(template)
	lay(t, w.src, tree{"dir/sub/a": noise(4, 1000), "dir/sub/new": noise(5, 1000), "file": noise(6, 1000)})
	w.mustPush(func(o *publishOptions) { o.AllowDeletes = true })
	for _, planted := range []string{"dir", "dir/sub", "file", "dir/sub/a", "dir/sub/new", ".nightferry", ".nightferry/stage", ".nightferry/pages", ".nightferry/journal", ".nightferry/catalogue"} {
		t.Run(planted, func(t *testing.T) {
			w := *w
			w.t = t
			outside := t.TempDir()
			lay(t, outside, tree{"a": []byte("not yours"), "gone": []byte("not yours"), "sub/a": []byte("not yours"), "sub/gone": []byte("not yours"), "file": []byte("not yours"), "stage/x": []byte("x"), "pages/x": []byte("x")})
			kept := untouched(t, outside)
			site := w.site()
			copyTree(t, template, site)
			at := filepath.Join(site, planted)
			must(t, os.RemoveAll(at))
			to := outside
			if planted == "file" || strings.HasSuffix(planted, "/a") || strings.HasSuffix(planted, "/new") || strings.HasSuffix(planted, "journal") || strings.HasSuffix(planted, "catalogue") {
				to = filepath.Join(outside, "file")
			}
			must(t, os.Symlink(to, at))
			p, err := w.pull(site, nil)
			kept()
			if err == nil && p.Verdict == apply.Verified {
				// A link in place of a file of the release is replaced; then every file is regular again.
				same(t, look(t, w.src), look(t, site))
			}
			if link, lerr := os.Lstat(at); p.Verdict != apply.Verified && err == nil && len(p.files) == 0 || lerr == nil && link.Mode()&os.ModeSymlink != 0 && p.Verdict == apply.Verified {
				t.Errorf("verdict %q, %v, outcomes %v", p.Verdict, err, p.files)
			}
		})
	}
}

// A link from nightferry's state folder to the site's own files stays inside the target, but must not be followed.
func TestBadInput_LinksToTheSitesOwn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symlink takes a right that tests do not have; internal/durable tests junctions")
	}
	w, template := releasesOfEverything(t, nil)
	shard := digest.Of(newer()["added"]).String()[:2]
	for _, planted := range []string{"stage", "stage/out", "stage/" + shard, "pages"} {
		site := w.site()
		copyTree(t, template, site)
		own := filepath.Join(site, "own")
		lay(t, own, tree{"precious": []byte("1"), "ab/precious": []byte("2"), "out/1": []byte("3")})
		at := filepath.Join(site, manifest.StateDir, planted)
		must(t, os.RemoveAll(at))
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		// Relative, because an absolute link would be refused as leading out.
		up, err := filepath.Rel(filepath.Dir(at), own)
		must(t, err)
		must(t, os.Symlink(up, at))
		kept := untouched(t, own)
		p, err := w.pull(site, nil)
		kept()
		if err == nil && p.Verdict != apply.Verified {
			t.Errorf("%s is a link: verdict %q and no error", planted, p.Verdict)
		}
	}
}

// A link is planted after all checks, when the commit starts.
func TestBadInput_LinkPlantedMeanwhile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making a symlink takes a right that tests do not have; internal/durable tests junctions")
	}
	w := newWorld(t, plan{})
	lay(t, w.src, tree{"dir/sub/a": noise(1, 1000), "dir/sub/gone": noise(2, 1000), "b": noise(3, 10)})
	w.mustPush(nil)
	site := w.site()
	w.arrive(site)
	lay(t, w.src, tree{"dir/sub/a": noise(4, 1000), "dir/sub/new": noise(5, 1000), "b": noise(3, 10)})
	w.mustPush(func(o *publishOptions) { o.AllowDeletes = true })
	own, sub, aside := filepath.Join(site, "own"), filepath.Join(site, "dir", "sub"), filepath.Join(site, "aside")
	lay(t, own, tree{"a": []byte("precious"), "gone": noise(2, 1000)}) // the paths that the release deletes
	kept := untouched(t, own)
	p, err := w.pull(site, func(o *apply.Options) {
		told := o.OnEvent
		o.OnEvent = func(e apply.Event) {
			told(e)
			if e.Kind == apply.PhaseEvent && e.Phase == apply.PhaseCommit {
				must(t, os.Rename(sub, aside))
				must(t, os.Symlink("../own", sub)) // an absolute link would be refused as leading out
			}
		}
	})
	kept()
	if err == nil && p.Verdict == apply.Verified {
		t.Error("verified through a link")
	}
	for _, err := range []error{os.Remove(sub), os.Rename(aside, sub)} {
		must(t, err)
	}
	p, err = w.pull(site, nil)
	must(t, err)
	kept()
	must(t, os.RemoveAll(own))
	w.arrived(p, site)
}

// A page or release claims a billion entries: it is refused at the claim, without much memory.
func TestBadInput_BillionEntries(t *testing.T) {
	billion := []byte{0x9a, 0x3b, 0x9a, 0xca, 0x00} // a CBOR array of 1 000 000 000
	for what, forge := range map[string]func(f *forger){
		"a page": func(f *forger) {
			ids := f.store(append(append(frame.Header(manifest.PageKind, manifest.PageVersion), 0x81), billion...))
			f.release(&manifest.Release{Totals: manifest.Totals{Files: 1}, Pages: []manifest.PageRef{{ID: ids[0], First: "a", Entries: 1}}})
		},
		"a page of a billion by the release's word": func(f *forger) {
			ids := f.store(f.page(file("a", []byte("x"))))
			f.release(&manifest.Release{Totals: manifest.Totals{Files: 1_000_000_000}, Pages: []manifest.PageRef{{ID: ids[0], First: "a", Entries: 1_000_000_000}}})
		},
		"a release of a billion in pages that are one": func(f *forger) {
			ids := f.store(f.page(file("a", []byte("x"))))
			rel := manifest.Release{Totals: manifest.Totals{Files: 50_000_000}}
			for range 50_000 {
				rel.Pages = append(rel.Pages, manifest.PageRef{ID: ids[0], First: "a", Entries: 1000})
			}
			f.release(&rel)
		},
	} {
		w := newWorld(t, plan{})
		forge(newForger(w))
		took := allocated(func() { _ = w.refused(what) })
		if took > 128<<20 {
			t.Errorf("%s: refused after %d MiB of memory", what, took>>20)
		}
	}
}

// A block of a few KB decompresses to a GiB; it stands in for content and for a page.
func TestBadInput_ZstdBomb(t *testing.T) {
	enc, err := pack.NewEncoder()
	must(t, err)
	bomb := enc.EncodeAll(make([]byte, 256<<20), []byte{pack.Zstd})
	if len(bomb) > 64<<10 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	content := noise(1, 300_000)
	for what, forge := range map[string]func(f *forger){
		"content": func(f *forger) {
			f.blob(bomb, digest.Of(content), int64(len(content)))
			f.publish("a", file("a", content))
		},
		"a page": func(f *forger) {
			id := digest.Of([]byte("a page"))
			f.blob(bomb, id, 1000)
			f.release(&manifest.Release{Totals: manifest.Totals{Files: 1}, Pages: []manifest.PageRef{{ID: id, First: "a", Entries: 1}}})
		},
	} {
		w := newWorld(t, plan{})
		forge(newForger(w))
		took := allocated(func() { _ = w.refused(what, "damaged", "packs/") })
		if took > 64<<20 {
			t.Errorf("%s: refused after %d MiB of memory", what, took>>20)
		}
	}
}

// allocated returns how many bytes fn allocated.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
