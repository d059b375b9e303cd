package apply

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// queueChecked queues a completely written file for the checkers.
func (g *stager) queueChecked(ctx context.Context, i int32) error {
	select {
	case g.check <- check{i, true}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// checkFiles reads files back and compares complete ones with the release's digests.
func (g *stager) checkFiles(ctx context.Context) error {
	buf := make([]byte, readSize)
	for k := range g.check {
		i := k.change
		c := &g.changes[i]
		sum, mode, err := g.readBack(ctx, k, buf)
		if err != nil {
			return stageError(c, err)
		}
		if !k.last {
			continue
		}
		if sum != c.digest {
			g.mu.Lock()
			g.bad = append(g.bad, i)
			g.mu.Unlock()
			continue
		}
		if err := g.finishFile(c, mode); err != nil {
			return err
		}
		g.emitProgress()
	}
	return nil
}

func (g *stager) readBack(ctx context.Context, k check, buf []byte) (sum digest.Digest, mode fs.FileMode, err error) {
	c, p := &g.changes[k.change], g.pipes[k.change]
	if !k.last {
		f, err := g.target.root.Open(c.stageName())
		if err != nil {
			return sum, 0, err
		}
		return sum, 0, errors.Join(p.hashReady(ctx, f, -1, buf, g.countBack), f.Close())
	}
	f, err := g.target.root.OpenRW(c.stageName())
	if err != nil {
		return sum, 0, err
	}
	if durable.NeedsFileSync(g.target.root) {
		if err := f.Sync(); err != nil {
			return sum, 0, errors.Join(err, f.Close())
		}
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case p != nil && info.Size() == c.size:
		if err = p.hashReady(ctx, f, c.size, buf, g.countBack); err == nil {
			sum = p.sum()
		}
	default:
		sum, err = hashReader(ctx, &fromStart{f: f, count: g.countBack}, c.size, buf)
		if errors.Is(err, errResized) {
			err = nil // a zero sum makes the file be staged again
		}
	}
	if err == nil {
		mode = info.Mode().Perm()
	}
	return sum, mode, errors.Join(err, f.Close())
}

// fromStart reads a File from its first byte.
type fromStart struct {
	f     *durable.File
	at    int64
	count func(int) // called with the number of bytes of each read
}

func (r *fromStart) Read(p []byte) (int, error) {
	n, err := r.f.ReadAt(p, r.at)
	r.at += int64(n)
	r.count(n)
	return n, err
}

// finishFile sets the mode and time of a verified file.
func (g *stager) finishFile(c *change, mode fs.FileMode) error {
	name := c.stageName()
	if g.target.keeps.Modes && mode != fs.FileMode(c.mode) {
		if err := g.commit.Tolerate(g.target.root.Chmod(name, fs.FileMode(c.mode))); err != nil {
			return stageError(c, err)
		}
	}
	if g.target.keeps.Grain > 0 {
		if err := g.commit.Tolerate(g.target.root.Chtimes(name, time.Unix(0, g.target.keeps.Time(c.mtime)))); err != nil {
			return stageError(c, err)
		}
	}
	c.state = stReady
	g.filesDone.Add(1)
	return nil
}
