package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/index"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
)

// The index part runs two of its steps in separate processes, so that their memory is measured like a tool's.
const (
	buildFlag = "-build-index"
	planFlag  = "-plan-index"
)

// chunksPerPack is the number of 128 KiB chunks in a pack of 24 MiB.
const chunksPerPack = 192

// syntheticIndex measures the cost of a pull from a large repository: finding 1 % of its chunks, spread evenly. This is
// the worst case, since it touches every page of the index. It runs the same code as pull, against the same server.
func (b *bench) syntheticIndex(ctx context.Context) error {
	n := 10_000_000
	if b.quick {
		n = 200_000
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	s := store{addr: b.server, bucket: "index", home: filepath.Join(b.scratch(), "home")}
	if err := errors.Join(b.clean(), os.MkdirAll(s.home, 0o700), os.MkdirAll(filepath.Join(b.data, s.bucket), 0o755)); err != nil {
		return err
	}
	url := fmt.Sprintf("s3://%s/repo?region=%s&endpoint=http://%s", s.bucket, region, s.addr)
	if _, err := spawn(ctx, command{s.home, []string{self, buildFlag, url, strconv.Itoa(n)}, s.env()}); err != nil {
		return err
	}
	p := &peer{name: "nightferry"}
	c := command{s.home, []string{self, planFlag, url, strconv.Itoa(n)}, s.env()}
	if _, err := b.timed(ctx, "index", planPull, p, c, b.data); err != nil {
		return err
	}
	return b.drop(s.bucket)
}

// indexChild is the entry point of these two processes.
func indexChild(ctx context.Context, args []string, stderr io.Writer) int {
	n, err := strconv.Atoi(args[2])
	if err == nil {
		var s bucket.Store
		if s, err = bucket.Open(ctx, args[1], bucket.Options{}); err == nil {
			do := planIndex
			if args[0] == buildFlag {
				do = buildIndex
			}
			err = do(ctx, s, n)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// syntheticID returns the i-th of n chunk ids, evenly spread and sorted, as digests are.
func syntheticID(i, n int) digest.Digest {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i))
	d := digest.Digest(sha256.Sum256(seed[:]))
	binary.BigEndian.PutUint64(d[:], uint64(i)*(math.MaxUint64/uint64(n)))
	return d
}

// buildIndex makes a repository whose index holds n chunks; the packs in it do not exist.
func buildIndex(ctx context.Context, s bucket.Store, n int) error {
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	_, release, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	if _, err := repo.Init(ctx, s, repo.InitOptions{Root: root, Release: release, Now: time.Now()}); err != nil {
		return err
	}
	r, err := repo.Open(ctx, s, repo.Options{Now: time.Now})
	if err != nil {
		return err
	}
	packs := make([]index.Pack, n/chunksPerPack+1)
	for i := range packs {
		packs[i] = index.Pack{Digest: digest.Of(fmt.Appendf(nil, "pack %d", i)), Size: 24 << 20}
	}
	f, err := os.Create("segment")
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	w, err := index.NewWriter(out, r.Keys(), packs)
	if err != nil {
		return err
	}
	// Eight chunks to a block, consecutive blocks in a pack; neighbours in the index are in different packs.
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		block := uint32(rnd.IntN(chunksPerPack / 8))
		err := w.Add(index.Record{ID: syntheticID(i, n), Pack: uint32(rnd.IntN(len(packs))), At: pack.Location{
			Block: pack.PreludeSize + block*700_000, Stored: 700_000, Offset: uint32(i%8) * 131_072, Size: 131_072}})
		if err != nil {
			return err
		}
	}
	ref, err := w.Finish()
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := s.Put(ctx, repo.SegmentKey(ref.Digest), bucket.Body{R: f, Size: ref.Size, SHA256: ref.Digest}, bucket.Cond{}); err != nil {
		return err
	}
	_, err = r.ReplaceRoot(ctx, func(root *index.Root, _ clock.Store) error {
		root.Segments = append(root.Segments, ref)
		return nil
	})
	return err
}

// planIndex opens the repository and finds one chunk in a hundred.
func planIndex(ctx context.Context, s bucket.Store, n int) error {
	r, err := repo.Open(ctx, s, repo.Options{Now: time.Now})
	if err != nil {
		return err
	}
	x, err := r.Index(ctx)
	if err != nil {
		return err
	}
	ids := make([]digest.Digest, 0, n/100)
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range n / 100 {
		ids = append(ids, syntheticID(i*100+rnd.IntN(100), n))
	}
	found, missing, err := x.Locate(ctx, ids)
	if err != nil {
		return err
	}
	if len(found) != len(ids) || len(missing) != 0 {
		return fmt.Errorf("locate %d chunks: found %d, missing %d", len(ids), len(found), len(missing))
	}
	return nil
}
