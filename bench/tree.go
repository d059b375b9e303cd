package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

func shapeOf(dir string) (shape, error) {
	var s shape
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		s.Files++
		s.Bytes += i.Size()
		return nil
	})
	return s, err
}

func copyFile(from, to string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	i, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Chtimes(to, i.ModTime(), i.ModTime()))
}

// linkTree makes to hold the same files as from, as hard links.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(p, filepath.Join(to, rel))
	})
}

// shareEqual replaces each file below now by a link to the file below before, if they are equal.
func shareEqual(before, now string) error {
	return filepath.WalkDir(now, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(now, p)
		if err != nil {
			return err
		}
		old := filepath.Join(before, rel)
		a, err := os.ReadFile(old)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(a, b) {
			return err
		}
		if err := os.Remove(p); err != nil {
			return err
		}
		return os.Link(old, p)
	})
}

// edit changes n files of each kind below dir as users and installers do, chosen by a fixed seed. An edited file's time
// moves by an hour and stays in the past, so tools that compare it with the upload time miss the edit.
func edit(dir string, n int) (map[string]int, error) {
	var names []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, p) // in the order of the walk, which is sorted
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the files to edit: %w", err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	done := map[string]int{}
	for _, e := range []struct {
		kind  string
		times int
		do    func(p string, old []byte) error
	}{
		{"edited, same size", 3, func(p string, old []byte) error {
			old[rnd.IntN(len(old))] ^= 0x55
			return rewrite(p, old)
		}},
		{"appended to", 1, func(p string, old []byte) error { return rewrite(p, append(old, noise(rnd, 1+len(old)/10)...)) }},
		{"inserted into", 1, func(p string, old []byte) error {
			at := rnd.IntN(len(old))
			return rewrite(p, append(append(append([]byte{}, old[:at]...), noise(rnd, 1+rnd.IntN(200))...), old[at:]...))
		}},
		{"deleted", 1, func(p string, _ []byte) error { return os.Remove(p) }},
		{"renamed", 1, func(p string, _ []byte) error { return os.Rename(p, p+".renamed") }},
		{"moved to another folder", 2, func(p string, _ []byte) error {
			to := filepath.Join(filepath.Dir(dir), "moved", filepath.Base(filepath.Dir(p)), filepath.Base(p))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.Rename(p, to)
		}},
	} {
		for done[e.kind] < e.times*n && len(names) > 0 {
			p := names[0]
			names = names[1:]
			old, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			if len(old) == 0 {
				continue
			}
			if err := e.do(p, old); err != nil {
				return nil, fmt.Errorf("edit the corpus: %w", err)
			}
			done[e.kind]++
		}
	}
	return done, nil
}

// rewrite writes new bytes at p without changing the file that other names link to.
func rewrite(p string, text []byte) error {
	i, err := os.Stat(p)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil {
		return err
	}
	if err := os.WriteFile(p, text, i.Mode().Perm()); err != nil {
		return err
	}
	t := i.ModTime().Add(time.Hour)
	return os.Chtimes(p, t, t)
}

func noise(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}
