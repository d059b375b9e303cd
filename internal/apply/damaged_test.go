package apply

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// ownRoot returns the public root key of the press.
func ownRoot(p *press) *trust.Public {
	k := trust.Public(p.root.Public().(ed25519.PublicKey))
	return &k
}

// spoiled are the ways in which a file of our own can be damaged.
func spoiled() map[string]func(name string) error {
	all := map[string]func(name string) error{
		"a folder":      func(name string) error { return os.MkdirAll(filepath.Join(name, "in it"), 0o755) },
		"an empty one":  func(name string) error { return os.Mkdir(name, 0o755) },
		"of zero bytes": func(name string) error { return os.WriteFile(name, nil, 0o644) },
		"garbage":       func(name string) error { return os.WriteFile(name, []byte(blob(7, 5000)), 0o644) },
		"garbage of 1 GiB": func(name string) error {
			if err := os.WriteFile(name, []byte(blob(8, 5000)), 0o644); err != nil {
				return err
			}
			return os.Truncate(name, 1<<30) // a hole
		},
	}
	if runtime.GOOS != "windows" {
		all["a link"] = func(name string) error { return os.Symlink("/etc/hostname", name) }
		all["without rights"] = func(name string) error { return os.WriteFile(name, []byte("x"), 0) }
	}
	return all
}

// TestDamagedState spoils each file and folder of .nightferry in each way. The next pull ends verified, the one after it
// has nothing to do, and no spoiled entry that holds anything is deleted, unless it is a cache.
func TestDamagedState(t *testing.T) {
	p, src, dst := dirs(t, tree{"a": "a", "sub/b": "b", "img": blob(1, 200_000)})
	p.publish(src)
	lay(t, src, tree{"a": "a2", "sub/b": "b", "new": "n"})
	p.publish(src)
	for _, name := range []string{memoryName, traitsName, catalogueName, beforeName, nextName, nextName + ".new", catalogueName + ".new", checksName,
		journalName, movedName, lockName, pagesDir, stageDir, outDir, asideDir, stageDir + "/ab", pagesDir + "/ab"} {
		for how, spoil := range spoiled() {
			if strings.Count(name, "/") > 1 && how == "a folder" || how == "garbage of 1 GiB" && runtime.GOOS == "windows" {
				continue // a folder is as it should be; without holes it takes a GiB
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				p := &press{t: t, store: p.store, root: p.root}
				dst := filepath.Join(filepath.Dir(dst), strings.ReplaceAll(name+how, "/", "-"))
				options := func(o *Options) { o.RootKey, o.Held = ownRoot(p), &Held{} }
				p.must(dst, func(o *Options) { o.RootKey, o.Release = ownRoot(p), 1 })
				full := filepath.Join(dst, filepath.FromSlash(name))
				try(t, os.RemoveAll(full))
				try(t, spoil(full))
				before := kept(t, filepath.Join(dst, stateDir))
				if err := CheckReadable(dst); err != nil {
					t.Fatalf("the agent would not begin a run: %v", err)
				}
				p.must(dst, options)
				sameTree(t, src, dst)
				if r := p.must(dst, options); !r.NoOp {
					t.Errorf("the second pull did %v", r.outcomes())
				}
				disposable := how == "a folder" && (name == pagesDir || name == stageDir) || strings.HasSuffix(name, ".new") || name == nextName || name == lockName || name == movedName
				if after := kept(t, filepath.Join(dst, stateDir)); before > 0 && after == 0 && !disposable {
					t.Error("what was damaged is gone")
				}
			})
		}
	}
}

// kept returns how many entries of a folder, not below the staging folder, hold the bytes that spoiled has written.
func kept(t *testing.T, dir string) (n int) {
	t.Helper()
	try(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (d.Name() == "in it" || d.Type()&fs.ModeSymlink != 0 || info.Size() == 1<<30 || info.Size() == 5000 || info.Size() == 1 && strings.Contains(path, "damaged")) {
			n++
		}
		return err
	}))
	return n
}

// TestDamagedMemoryWithoutKey: without a root key to vouch for, a damaged memory ends the run, and its remedy works.
func TestDamagedMemoryWithoutKey(t *testing.T) {
	p, src, dst := dirs(t, tree{"a": "a"})
	p.publish(src)
	p.must(dst, nil)
	name := filepath.Join(dst, filepath.FromSlash(memoryName))
	try(t, os.Remove(name))
	try(t, os.MkdirAll(filepath.Join(name, "in it"), 0o755))
	if _, err := p.pull(dst, nil); !errors.As(err, new(*repo.MemoryError)) {
		t.Fatal(err)
	}
	p.must(dst, func(o *Options) { o.RootKey = ownRoot(p) }) // --trust KEY
	p.must(dst, nil)
}
