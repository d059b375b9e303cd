package apply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/runs"
)

// readSize is the size in bytes of one read when a file is hashed.
const readSize = 1 << 20

// hashWorkers returns the number of hashing goroutines: one per processor, because each keeps one busy.
func hashWorkers() int { return max(2, runtime.GOMAXPROCS(0)) }

// eachIndex runs fn over the indexes from several goroutines. Each has its own buffer of readSize bytes.
func eachIndex(ctx context.Context, indexes []int32, fn func(ctx context.Context, i int32, buf []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(hashWorkers(), len(indexes)) {
		g.Go(func() error {
			buf := make([]byte, readSize)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(indexes) || ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := fn(ctx, indexes[n], buf); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// examineUnknown reads every file whose content the plan could not determine: the target is new, the catalogue was lost,
// or the file was changed.
func (s *site) examineUnknown(ctx context.Context, changes []change) error {
	var unknown []int32
	for i := range changes {
		if changes[i].state == stUnknown {
			unknown = append(unknown, int32(i))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	s.report.emitPhase(PhaseExamine)
	s.reportRestated(changes, unknown)
	if err := s.readUnknown(ctx, changes, unknown); err != nil {
		return err
	}
	for _, i := range unknown {
		c := &changes[i]
		if c.state != stDropped {
			continue
		}
		for _, dir := range holdFolders(changes, c.path, c.out, c.cause) {
			if c.out == runs.FileExtra {
				s.report.emit(Event{Path: dir, Outcome: runs.FileExtra})
			}
		}
	}
	return nil
}

func (s *site) readUnknown(ctx context.Context, changes []change, unknown []int32) error {
	return eachIndex(ctx, unknown, func(ctx context.Context, i int32, buf []byte) error {
		c := &changes[i]
		var limit func(int) error
		var ended error
		if c.restated && s.o.Limit != nil {
			limit = func(n int) error {
				ended = s.o.Limit(ctx, n)
				return ended
			}
		}
		sum, err := s.target.hashFile(ctx, c.path, c.foundStat().Size, limit, buf)
		if ended != nil {
			return ended
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && sum == c.digest && c.act == actPlace {
			c.found.digest = sum
			s.settleRight(c)
			return nil
		}
		if c.act == actRemove {
			s.settleRemoved(c, sum, err)
			return nil
		}
		if err == nil {
			c.found.digest = sum
		}
		// A file that cannot be read is still replaced if possible.
		c.state = stLacking
		if c.out == runs.FileRepaired && c.cause == nil {
			if err != nil {
				c.cause = s.target.repairReason(c.path, "unreadable", err.Error())
			} else {
				c.cause = s.target.repairReason(c.path, "hash", "its SHA-256 was "+sum.Short())
			}
		}
		return nil
	})
}

// settleRight settles a file that already has the release's content.
func (s *site) settleRight(c *change) {
	c.state, c.act = stReady, actTouch
	if s.target.keeps.SameTime(c.foundStat().MTime, c.mtime) && durable.SameMode(s.target.root, &s.target.keeps, c.path, c.foundStat().Mode, c.mode) {
		c.act, c.out, c.cause = actNone, runs.FileUnchanged, nil
	} else if c.out == runs.FileRepaired {
		c.cause = s.target.repairReason(c.path, "time", "its time or mode was another")
	}
}

// settleRemoved settles a file that the release no longer has. It is deleted only if a release put this content there.
func (s *site) settleRemoved(c *change, sum digest.Digest, err error) {
	if err == nil && sum == c.foundDigest() {
		c.state = stReady
		return
	}
	if err != nil {
		c.state, c.out, c.cause = stDropped, outcomeOf(err), fmt.Errorf("the release deletes it, but it cannot be read and compared with the file that an earlier release put there: %w", err)
		return
	}
	c.state, c.out, c.act = stDropped, runs.FileExtra, actNone
	c.cause = fmt.Errorf("the release deletes it, but it was edited here: left alone")
	s.report.emit(Event{Path: c.path, Outcome: runs.FileExtra, Size: c.foundStat().Size, Cause: c.cause})
}

// hashFile returns the SHA-256 of a file of size bytes, as fast as limit allows. It fails if the file has another size
// or changes its size during the read.
func (t *targetDir) hashFile(ctx context.Context, name string, size int64, limit func(n int) error, buf []byte) (digest.Digest, error) {
	f, err := t.root.Open(name)
	if err != nil {
		return digest.Digest{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return digest.Digest{}, err
	}
	if info.Size() != size {
		return digest.Digest{}, fmt.Errorf("read %q: %w", name, errResized)
	}
	r := io.LimitReader(f, size+1)
	if limit != nil {
		r = &limited{r: r, limit: limit}
	}
	return hashReader(ctx, r, size, buf)
}

var errResized = fmt.Errorf("its size changed while it was read: %w", fs.ErrInvalid)

func hashReader(ctx context.Context, r io.Reader, size int64, buf []byte) (d digest.Digest, err error) {
	h := sha256.New()
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		total += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return d, err
		}
	}
	if total != size {
		return d, errResized
	}
	h.Sum(d[:0])
	return d, nil
}

// matchMoves finds for each new file an old one with the same content that is about to be removed, and moves it instead.
// This covers renames, moves, swaps and changes of case. matchMoves reads the old file's bytes first, to verify the
// content that the run reports.
func (s *site) matchMoves(ctx context.Context, changes []change) error {
	var freed []int32
	for i := range changes {
		c := &changes[i]
		if c.state != stDropped && c.onDisk && !c.foundDigest().IsZero() && c.foundDigest() != c.digest && (c.act == actRemove || c.act == actPlace) && c.foundStat().Size > 0 {
			freed = append(freed, int32(i))
		}
	}
	if len(freed) == 0 {
		return nil
	}
	slices.SortFunc(freed, func(a, b int32) int {
		return cmp.Or(changes[a].foundDigest().Compare(changes[b].foundDigest()), cmp.Compare(a, b))
	})
	var movers []int32
	for i := range changes {
		c := &changes[i]
		if c.state != stLacking || c.act != actPlace || c.size == 0 {
			continue
		}
		at, found := slices.BinarySearchFunc(freed, c.digest, func(f int32, d digest.Digest) int { return changes[f].foundDigest().Compare(d) })
		for ; found && at < len(freed) && changes[freed[at]].foundDigest() == c.digest; at++ {
			if old := &changes[freed[at]]; old.to < 0 {
				old.to, c.from = int32(i), freed[at]
				movers = append(movers, int32(i))
				break
			}
		}
	}
	return eachIndex(ctx, movers, func(ctx context.Context, i int32, buf []byte) error {
		c := &changes[i]
		old := &changes[c.from]
		sum, err := s.target.hashFile(ctx, old.path, old.foundStat().Size, nil, buf)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || sum != c.digest {
			old.to, c.from = -1, -1
			return nil
		}
		c.state, c.held, c.out = stReady, c.size, runs.FileMoved
		return nil
	})
}

// probeChange returns an error if a program holds the file that the change will touch, or if an attribute forbids the
// change. The commit reports any other error.
func (t *targetDir) probeChange(c *change) error {
	if !c.onDisk || c.state == stDropped || c.act == actNone {
		return nil
	}
	if err := t.root.ProbeLocked(c.path); durable.IsLocked(err) || errors.Is(err, durable.ErrImmutable) {
		return err
	}
	return nil
}
