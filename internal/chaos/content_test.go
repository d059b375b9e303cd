//go:build linux

package chaos

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a folder's content: the SHA-256 of each file, and "folder" for each folder.
type tree map[string]string

// content is the source of a channel, and its state at each release.
type content struct {
	name, dir string
	made      int
	releases  map[uint64]tree // of the releases whose publish returned a response
}

func newContent(dir, name string) *content {
	return &content{name: name, dir: dir, releases: map[uint64]tree{}}
}

// fill writes the first files.
func (c *content) fill(t *testing.T, r *rand.Rand) {
	t.Helper()
	for range 120 {
		c.add(t, r)
	}
}

// size returns a size typical for the channel: drivers are many and small, some packages are large.
func (c *content) size(r *rand.Rand) int {
	switch {
	case c.name == "driver":
		return r.IntN(8 << 10)
	case r.IntN(30) == 0:
		return 1<<20 + r.IntN(1<<20)
	}
	return r.IntN(64 << 10)
}

func (c *content) add(t *testing.T, r *rand.Rand) {
	t.Helper()
	name := fmt.Sprintf("%c%d/%s %d.bin", 'a'+rune(r.IntN(5)), r.IntN(6), []string{"plain", "Grüße", "x&y", "'q'"}[r.IntN(4)], c.made)
	c.made++
	c.write(t, name, noise(r, c.size(r)))
}

func (c *content) write(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join(c.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32()) & 0x3f // compresses, a little
	}
	return b
}

// mutate changes a folder as users do: it adds, edits, moves, swaps and deletes files.
func (c *content) mutate(t *testing.T, r *rand.Rand) {
	t.Helper()
	now := look(t, c.dir)
	files := slices.DeleteFunc(slices.Sorted(maps.Keys(now)), func(p string) bool { return now[p] == "folder" })
	r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	take := func() string {
		f := files[0]
		files = files[1:]
		return f
	}
	for range 6 + r.IntN(8) {
		c.add(t, r)
	}
	for range 4 + r.IntN(8) {
		c.write(t, take(), noise(r, c.size(r)))
	}
	for range 3 {
		c.rename(t, take(), fmt.Sprintf("moved/to %d", c.made))
		c.made++
	}
	a, b := take(), take()
	c.rename(t, a, "swap")
	c.rename(t, b, a)
	c.rename(t, "swap", b)
	for range 4 + r.IntN(3) {
		if err := os.Remove(filepath.Join(c.dir, filepath.FromSlash(take()))); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *content) rename(t *testing.T, from, to string) {
	t.Helper()
	path := filepath.Join(c.dir, filepath.FromSlash(to))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(c.dir, filepath.FromSlash(from)), path); err != nil {
		t.Fatal(err)
	}
}

// look reads a folder completely, except nightferry's own files.
func look(t *testing.T, dir string) tree {
	t.Helper()
	out := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, dir+string(filepath.Separator)))
		switch {
		case name == ".nightferry":
			return fs.SkipDir
		case d.IsDir():
			out[name] = "folder"
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is a %v", path, d.Type())
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out[name] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
