package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

const stateDir = ".nightferry"

// node is the expected state of a file or folder.
type node struct {
	dir   bool
	data  []byte
	mode  fs.FileMode
	mtime time.Time // of a file
}

// tree is a folder's content by slash-separated path, all folders included.
type tree map[string]node

func (tr tree) file(p string, data []byte) { tr.put(p, data, 0) }

// put adds a file. Its time depends on its content and nudge, so that equal files are equal in both releases.
func (tr tree) put(p string, data []byte, nudge int) {
	tr.parents(p)
	sum := sha256.Sum256(data)
	at := time.Date(2024, 5, 6, 7, 0, 0, 123456700, time.UTC).Add(time.Duration(sum[0])*time.Minute + time.Duration(nudge)*time.Hour)
	mode := fs.FileMode(0o644)
	if nudge%2 == 1 {
		mode = 0o755
	}
	tr[p] = node{data: data, mode: mode, mtime: at}
}

func (tr tree) folder(p string) {
	tr.parents(p)
	tr[p] = node{dir: true, mode: 0o755}
}

func (tr tree) parents(p string) {
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		tr[d] = node{dir: true, mode: 0o755}
	}
}

// random returns n bytes that differ from those of every other call on the same generator.
func random(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func generator(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7})
}

// releases returns two releases that differ in every possible way. image is the size of the large file in bytes.
func releases(seed uint64, image int) (old, now tree) {
	src := generator(seed)
	rnd := rand.New(src)
	old, now = tree{}, tree{}
	blob := func() []byte { return random(src, 1+rnd.IntN(5000)) }
	both := func(p string, b []byte) { old.file(p, b); now.file(p, b) }

	a, b, c := blob(), blob(), blob()
	old.file("swap/a", a)
	old.file("swap/b", b)
	now.file("swap/a", b)
	now.file("swap/b", a)
	old.file("ring/1", c)
	old.file("ring/2", a)
	old.file("ring/3", b)
	now.file("ring/2", c)
	now.file("ring/3", a)
	now.file("ring/1", b)
	a = blob()
	old.file("edit/same size", a)
	b = slices.Clone(a)
	b[len(b)/2] ^= 1
	now.file("edit/same size", b)
	old.file("edit/longer", blob())
	now.file("edit/longer", random(src, 40_000))
	old.file("edit/emptied", blob())
	now.file("edit/emptied", nil)
	a = blob()
	old.put("edit/touched", a, 0)
	now.put("edit/touched", a, 3)
	a = blob()
	old.file("from/plain", a)
	now.file("to/deep/plain", a)
	a = blob()
	old.put("from/retimed", a, 0)
	now.put("to/retimed", a, 5)
	a = blob()
	both("twin/stays", a)
	old.file("twin/goes", a)
	now.file("twin/arrives", a)
	a = blob()
	old.file("chain/1", a) // moves to a path whose own content moves away
	old.file("chain/2", blob())
	now.file("chain/2", a)
	now.file("chain/1", old["chain/2"].data)
	a = blob()
	old.file("Case.TXT", a)
	now.file("case.txt", a)
	a = blob()
	old.file("Drivers/net.sys", a)
	now.file("drivers/net.sys", a)
	old.file("turn", blob())
	now.file("turn/inside/deep", blob())
	old.file("fold/in", blob())
	old.file("fold/sub/in", blob())
	now.file("fold", blob())
	a = blob()
	old.file("cross", a) // a file becomes a folder, and its content replaces a folder
	old.file("piece/x", blob())
	now.file("cross/y", old["piece/x"].data)
	now.file("piece", a)
	old.file("gone/with/folder", blob())
	old.file("gone/file", blob())
	old.folder("empty/old")
	now.folder("empty/new")
	old.folder("empty/stays")
	now.folder("empty/stays")

	img := random(src, image)
	old.file("images/disk.img", slices.Concat(img, make([]byte, image/2), img[:image/4]))
	now.file("images/disk.img", slices.Concat(img[:image/3], random(src, image/3), make([]byte, image/2), img[image/3:]))
	now.file("images/new.wim", random(src, image/2))
	now.file("images/zeros.vhd", make([]byte, 300_000))

	for i := range 24 {
		p := fmt.Sprintf("many/%d/%02d.inf", rnd.IntN(4), i)
		switch a := blob(); rnd.IntN(6) {
		case 0:
			both(p, a)
		case 1:
			old.file(p, a)
		case 2:
			now.file(p, a)
		case 3:
			old.file(p, a)
			now.file(fmt.Sprintf("moved/%d/%02d.inf", rnd.IntN(4), i), a)
		default:
			old.file(p, a)
			now.file(p, blob())
		}
	}
	return old, now
}

// lay makes dir contain exactly the tree.
func lay(dir string, tr tree) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return add(dir, tr)
}

// add writes the tree's files to dir.
func add(dir string, tr tree) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var paths []string
	for p := range tr {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		name, n := filepath.Join(dir, filepath.FromSlash(p)), tr[p]
		if n.dir {
			if err := os.MkdirAll(name, n.mode); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, n.data, n.mode); err != nil {
			return err
		}
		if err := os.Chmod(name, n.mode); err != nil {
			return err
		}
		if err := os.Chtimes(name, n.mtime, n.mtime); err != nil {
			return err
		}
	}
	return nil
}

// look is the visible state under a path: "folder", or the SHA-256 of a file.
type look map[string]string

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func (tr tree) look() look {
	l := look{}
	for p, n := range tr {
		if n.dir {
			l[p] = "folder"
		} else {
			l[p] = sum(n.data)
		}
	}
	return l
}

// see reads dir without nightferry's own folder.
func see(dir string) (look, error) {
	l := look{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		rel = filepath.ToSlash(rel)
		switch {
		case err != nil || rel == ".":
		case rel == stateDir:
			return fs.SkipDir
		case d.IsDir():
			l[rel] = "folder"
		case !d.Type().IsRegular():
			l[rel] = d.Type().String()
		default:
			var b []byte
			b, err = os.ReadFile(p)
			l[rel] = sum(b)
		}
		return err
	})
	return l, err
}

// differ lists the differences between two looks; it returns "" if there are none.
func differ(want, have look) string {
	var b strings.Builder
	for p, w := range want {
		if h := have[p]; h != w {
			fmt.Fprintf(&b, "\n  %q: want %.12s, have %.12s", p, w, h)
		}
	}
	for p, h := range have {
		if _, ok := want[p]; !ok {
			fmt.Fprintf(&b, "\n  %q: want nothing, have %.12s", p, h)
		}
	}
	return b.String()
}

// same fails unless dir equals the tree in names, bytes, times and modes.
func same(dir string, tr tree) error {
	have, err := see(dir)
	if err != nil {
		return err
	}
	if d := differ(tr.look(), have); d != "" {
		return fmt.Errorf("the folder is not the release:%s", d)
	}
	for p, n := range tr {
		if n.dir {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil {
			return err
		}
		if !info.ModTime().Equal(n.mtime) {
			return fmt.Errorf("%q has time %v, want %v", p, info.ModTime(), n.mtime)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != n.mode {
			return fmt.Errorf("%q has mode %v, want %v", p, info.Mode(), n.mode)
		}
	}
	return nil
}

// held returns the sizes of all files in dir by SHA-256. dir may be missing.
func held(dir string) (map[string]int64, error) {
	m := map[string]int64{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		m[sum(b)] = int64(len(b))
		return err
	})
	if os.IsNotExist(err) {
		err = nil
	}
	return m, err
}

// copyTree copies a folder. With link, it links files: a store replaces its files and never changes them.
func copyTree(from, to string, link bool) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		name := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(name, 0o755)
		}
		if link && os.Link(p, name) == nil {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(name, b, 0o644)
	})
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
