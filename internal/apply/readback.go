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
		same, err := g.readBack(ctx, k, buf)
		if err != nil {
			return stageError(c, err)
		}
		if !k.last {
			continue
		}
		if !same {
			g.mu.Lock()
			g.bad = append(g.bad, i)
			g.mu.Unlock()
			continue
		}
		g.emitProgress()
	}
	return nil
}

// readBack reads the part of a file that was written since the last call. With k.last it reads the rest, reports whether
// the file has the digest of the release, and finishes it if it has.
func (g *stager) readBack(ctx context.Context, k check, buf []byte) (same bool, err error) {
	c, p := &g.changes[k.change], g.pipes[k.change]
	if !k.last {
		f, err := g.target.root.Open(c.stageName())
		if err != nil {
			return false, err
		}
		return false, errors.Join(p.hashReady(ctx, f, -1, buf, g.countBack), f.Close())
	}
	f, err := g.target.root.OpenRW(c.stageName())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if durable.NeedsFileSync(g.target.root) {
		if err := f.Sync(); err != nil {
			return false, err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	var sum digest.Digest
	if p != nil && info.Size() == c.size {
		if err := p.hashReady(ctx, f, c.size, buf, g.countBack); err != nil {
			return false, err
		}
		sum = p.sum()
	} else {
		sum, err = hashReader(ctx, &fromStart{f: f, count: g.countBack}, c.size, buf)
		if err != nil {
			if errors.Is(err, errResized) {
				err = nil // the file is staged again
			}
			return false, err
		}
	}
	if sum != c.digest {
		return false, nil
	}
	return true, g.finishFile(c, f, info)
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

// finishFile sets the mode and time of a verified file that is open, so that neither is looked up by name again.
func (g *stager) finishFile(c *change, f *durable.File, info fs.FileInfo) error {
	if mode := fs.FileMode(c.mode); g.target.keeps.Modes && info.Mode().Perm() != mode {
		if err := g.commit.Tolerate(f.Chmod(mode)); err != nil {
			return err
		}
	}
	if g.target.keeps.Grain > 0 {
		if err := g.commit.Tolerate(f.Chtimes(time.Unix(0, g.target.keeps.Time(c.mtime)))); err != nil {
			return err
		}
	}
	c.state = stReady
	g.filesDone.Add(1)
	return nil
}
