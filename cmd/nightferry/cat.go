package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// catWindow is how many bytes of a file are fetched at a time, out of order,
// before they are written in order.
const catWindow = 32 << 20

func newCat(e *env) *cobra.Command {
	var f storeFlags
	var number trust.ReleaseNumber
	cmd := e.command(verb{
		use:     "cat [flags] STORE CHANNEL PATH",
		short:   "Write one file of a release to stdout",
		long:    "Writes the content of one file to stdout. Every chunk is checked before it is written, and the whole against the release's digest at the end; if that check fails, the exit code is not 0 and the output must not be used.",
		example: "nightferry cat file:///srv/store package setup/readme.txt\nnightferry cat --release 3 file:///srv/store image base.wim >base.wim",
		min:     3, max: 3, subject: 2,
		run: func(ctx context.Context, args []string) error {
			return e.cat(ctx, args[0], args[1], args[2], number, &f)
		},
	})
	f.add(cmd)
	cmd.Flags().Uint64Var((*uint64)(&number), "release", 0, "read from release `N` (default: the newest)")
	return cmd
}

func (e *env) cat(ctx context.Context, rawURL, channel, path string, number trust.ReleaseNumber, f *storeFlags) (err error) {
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rel, err := s.release(ctx, channel, number)
	if err != nil {
		return err
	}
	index, err := s.Index(ctx)
	if err != nil {
		return err
	}
	at := func(context.Context) (*repo.Index, error) { return index, nil }
	pages := repo.NewMemoryPages()
	entry, err := s.Manifests(pages).Find(ctx, at, rel, path, s.fetch())
	if err != nil {
		return err
	}
	if entry == nil {
		return s.noFile(ctx, rel, path)
	}
	if entry.Kind == manifest.Dir {
		return &absentError{"it is a folder", "nightferry ls lists its files"}
	}
	lists := make([]digest.Digest, len(entry.Lists))
	for i, l := range entry.Lists {
		lists[i] = l.ID
	}
	if err := s.Manifests(pages).Load(ctx, at, lists, s.fetch()); err != nil {
		return err
	}
	refs, err := s.Manifests(pages).Refs(entry)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := s.pour(ctx, index, refs, io.MultiWriter(e.stdout, sum)); err != nil {
		return err
	}
	if got := digest.Digest(sum.Sum(nil)); got != entry.Digest {
		return fmt.Errorf("its digest is %s, the release says %s: %w", got, entry.Digest, frame.ErrDamaged)
	}
	return nil
}

// noFile is the error for a path that a release does not hold.
func (s *session) noFile(ctx context.Context, rel *repo.Release, path string) error {
	next, pages, err := s.entries(ctx, rel)
	if err != nil {
		return err
	}
	near := fleet.NewNearest(path)
	for {
		entry, err := next()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return errors.Join(err, pages.done())
		}
		if entry == nil {
			break
		}
		if entry.Kind == manifest.File {
			near.Add(entry.Path)
		}
	}
	return errors.Join(&absentError{fmt.Sprintf("release %d of %q holds no such file", rel.Number, rel.Channel), nearRemedy(near, "nightferry ls lists its files")}, pages.done())
}

// pour writes the bytes that refs name, in order.
func (s *session) pour(ctx context.Context, index *repo.Index, refs []chunk.Ref, w io.Writer) error {
	for len(refs) > 0 {
		var ids []digest.Digest
		var bytes int64
		n := 0
		for ; n < len(refs) && (refs[n].Hole() || bytes+refs[n].Size <= catWindow); n++ {
			if !refs[n].Hole() {
				ids = append(ids, refs[n].ID)
				bytes += refs[n].Size
			}
		}
		places, missing, err := index.Locate(ctx, ids)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return &repo.MissingError{Chunks: missing}
		}
		var mu sync.Mutex
		have := map[digest.Digest][]byte{}
		err = index.Fetch(ctx, places, s.fetch(), func(_ context.Context, b *repo.Block) error {
			mu.Lock()
			defer mu.Unlock()
			for i, p := range b.Places {
				have[p.ID] = append([]byte(nil), b.Chunk(i)...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range refs[:n] {
			if err := writeRef(ctx, w, r, have[r.ID]); err != nil {
				return err
			}
		}
		refs = refs[n:]
	}
	return nil
}

func writeRef(ctx context.Context, w io.Writer, r chunk.Ref, b []byte) error {
	if !r.Hole() {
		_, err := w.Write(b)
		return err
	}
	zeros := make([]byte, min(r.Size, 1<<20))
	for left := r.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := w.Write(zeros[:min(left, int64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
