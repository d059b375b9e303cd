package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// made is the modification time of all synthetic content, so that a regenerated tree is identical.
var made = time.Unix(1_700_000_000, 0)

// manyFiles makes n incompressible files of size bytes, in folders of perFolder. It leaves a complete tree unchanged.
func manyFiles(dir string, n, perFolder, size int) error {
	done := dir + ".complete"
	if _, err := os.Stat(done); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	rnd := rand.NewChaCha8([32]byte{7})
	text := make([]byte, size)
	for i := range n {
		at := filepath.Join(dir, fmt.Sprintf("%04d", i/perFolder))
		if i%perFolder == 0 {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
		}
		if _, err := rnd.Read(text); err != nil {
			return err
		}
		p := filepath.Join(at, fmt.Sprintf("%04d.dat", i%perFolder))
		if err := errors.Join(os.WriteFile(p, text, 0o644), os.Chtimes(p, made, made)); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o644)
}

const page = 4096

// sparseFile makes a file of size bytes with one page of noise in each 128 KiB.
func sparseFile(name string, size int64) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Chtimes(name, made, made)) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	rnd := rand.NewChaCha8([32]byte{9})
	text := make([]byte, page)
	for off := int64(0); off+page <= size; off += 128 << 10 {
		if _, err := rnd.Read(text); err != nil {
			return err
		}
		if _, err := f.WriteAt(text, off); err != nil {
			return err
		}
	}
	return nil
}

// stampPage overwrites a page of a file with other noise.
func stampPage(name string, off int64, seed byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text := make([]byte, page)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(text); err != nil {
		return err
	}
	_, err = f.WriteAt(text, off)
	return err
}

// wan measures the pull of many small files over a long line.
func (b *bench) wan(ctx context.Context) error {
	if b.direct {
		return fmt.Errorf("lay the long line: the counting proxy is the line, run it without -direct")
	}
	n := 100_000
	if b.quick {
		n = 1000
	}
	src := filepath.Join(b.dir, "small")
	if err := manyFiles(src, n, 1000, 10_000); err != nil {
		return fmt.Errorf("make %d files: %w", n, err)
	}
	want, err := sumTree(ctx, src)
	if err != nil {
		return err
	}
	for _, name := range b.tools {
		if name == "aws" {
			continue // no target needs it, and one request at a time over this line takes hours
		}
		bucket := "wan-" + name
		p, err := b.open(ctx, name, bucket, src)
		if err != nil {
			return err
		}
		if _, err := b.timed(ctx, "wan", firstPush, p, p.push(src), b.data); err != nil {
			return err
		}
		take := b.counter.lay()
		q, err := b.newPeer(ctx, name, store{addr: b.server, bucket: bucket, home: filepath.Join(b.scratch(), "home"), src: src})
		if err == nil {
			_, err = b.timed(ctx, "wan", firstPull, q, q.pull(b.target()), b.target())
		}
		take()
		if err != nil {
			return err
		}
		if err := b.check(ctx, "wan", firstPull, q, b.target(), want); err != nil {
			return err
		}
		if err := b.drop(bucket); err != nil {
			return err
		}
	}
	return nil
}
