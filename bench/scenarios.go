package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// The names of the work in the report.
const (
	firstPush  = "first push"
	firstPull  = "first pull"
	noopPush   = "no-op push"
	noopPull   = "no-op pull"
	updatePush = "update push (v1 → v2)"
	updatePull = "update pull (v1 → v2)"
	planPull   = "locate 1 % of 10 000 000 chunks"
	plainCopy  = "copy of the same files"
)

// mixedCorpus runs every tool over the corpus: first, unchanged and changed content, in both directions.
func (b *bench) mixedCorpus(ctx context.Context) error {
	c, err := openCorpus(ctx, filepath.Join(b.dir, "corpus"), b.quick, b.log)
	if err != nil {
		return err
	}
	b.results.Corpus = *c
	b.results.Corpus.V1Sums, b.results.Corpus.V2Sums = nil, nil
	if err := b.copyCorpus(ctx, c); err != nil {
		return err
	}
	for _, name := range b.tools {
		bucket := "corpus-" + name
		err := b.oneTool(ctx, c, name, bucket)
		if err := errors.Join(err, c.use(0), b.drop(bucket)); err != nil {
			return err
		}
	}
	return nil
}

// copyCorpus measures the cost of writing the same bytes without any tool: the lower bound of every first pull.
func (b *bench) copyCorpus(ctx context.Context, c *corpus) error {
	if err := b.clean(); err != nil {
		return err
	}
	if err := os.MkdirAll(b.target(), 0o755); err != nil {
		return err
	}
	// Once unmeasured: then every tool finds the source in memory, even the first.
	for _, work := range []string{"", plainCopy} {
		if err := errors.Join(os.RemoveAll(b.target()), os.MkdirAll(b.target(), 0o755)); err != nil {
			return err
		}
		cp := command{"", []string{"cp", "-r", "--preserve=timestamps", "--sparse=never", "--reflink=never", c.v1(), b.target()}, nil}
		if work == "" {
			if _, err := b.measure(ctx, cp, b.target()); err != nil {
				return err
			}
		} else if _, err := b.timed(ctx, "corpus", work, &peer{name: "cp"}, cp, b.target()); err != nil {
			return err
		}
	}
	return b.clean()
}

func (b *bench) oneTool(ctx context.Context, c *corpus, name, bucket string) error {
	p, err := b.open(ctx, name, bucket, c.src())
	if err != nil {
		return err
	}
	for version, steps := range [][]string{1: {firstPush, noopPush, firstPull, noopPull}, 2: {updatePush, updatePull}} {
		if version == 0 {
			continue
		}
		if err := c.use(version); err != nil {
			return err
		}
		want := c.V1Sums
		if version == 2 {
			want = c.V2Sums
		}
		for _, work := range steps {
			pull := slices.Contains([]string{firstPull, noopPull, updatePull}, work)
			cmd, target := p.push(c.src()), b.data
			if pull {
				cmd, target = p.pull(b.target()), b.target()
			}
			if _, err := b.timed(ctx, "corpus", work, p, cmd, target); err != nil {
				return err
			}
			if pull {
				if err := b.check(ctx, "corpus", work, p, b.target(), want); err != nil {
					return err
				}
			}
		}
		if err := c.use(0); err != nil {
			return err
		}
	}
	return nil
}

// million measures a no-op over very many files, for nightferry only: a peer that keeps an object per file would first
// need an hour and a million objects.
func (b *bench) million(ctx context.Context) error {
	n := 1_000_000
	if b.quick {
		n = 20_000
	}
	src := filepath.Join(b.dir, "million")
	if err := manyFiles(src, n, 1000, 128); err != nil {
		return fmt.Errorf("make %d files: %w", n, err)
	}
	if !slices.Contains(b.tools, "nightferry") {
		return nil
	}
	p, err := b.open(ctx, "nightferry", "million", src)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		work string
		c    command
		at   string
	}{
		{firstPush, p.push(src), b.data}, {firstPull, p.pull(b.target()), b.target()},
		{noopPush, p.push(src), b.data}, {noopPull, p.pull(b.target()), b.target()},
	} {
		if _, err := b.timed(ctx, "million", step.work, p, step.c, step.at); err != nil {
			return err
		}
	}
	want, err := sumTree(ctx, src)
	if err != nil {
		return err
	}
	return errors.Join(b.check(ctx, "million", noopPull, p, b.target(), want), b.drop("million"))
}

// sparse measures the cost of one changed chunk in a very large file, a miniature disk image. Each 128 KiB hold one
// page of unique bytes and otherwise a hole. So every chunk is unique, and the file fits on a small disk.
func (b *bench) sparse(ctx context.Context) error {
	size := int64(40 << 30)
	if b.quick {
		size = 1 << 30
	}
	src := filepath.Join(b.dir, "sparse")
	if err := sparseFile(filepath.Join(src, "disk.img"), size); err != nil {
		return fmt.Errorf("make the sparse file: %w", err)
	}
	if !slices.Contains(b.tools, "nightferry") {
		return nil
	}
	p, err := b.open(ctx, "nightferry", "sparse", src)
	if err != nil {
		return err
	}
	for _, push := range []string{firstPush, updatePush} {
		pull := firstPull
		if push == updatePush {
			pull = updatePull
			if err := stampPage(filepath.Join(src, "disk.img"), size/2+12345, 99); err != nil {
				return err
			}
		}
		if _, err := b.timed(ctx, "sparse", push, p, p.push(src), b.data); err != nil {
			return err
		}
		if _, err := b.timed(ctx, "sparse", pull, p, p.pull(b.target()), b.target()); err != nil {
			return err
		}
		want, err := sumTree(ctx, src)
		if err != nil {
			return err
		}
		if err := b.check(ctx, "sparse", pull, p, b.target(), want); err != nil {
			return err
		}
	}
	return errors.Join(b.drop("sparse"), os.RemoveAll(src))
}
