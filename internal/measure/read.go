package measure

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// readFile reads every byte of a file whose size and time match the release.
func (r *run) readFile(ctx context.Context, j *job, buf []byte) {
	e := j.entry
	after, err := r.hashFile(ctx, j, buf)
	switch {
	case err == nil && j.sum == e.Digest:
	case err == nil:
		why := fmt.Sprintf("size and time are the release's, its SHA-256 is %s and the release says %s", j.sum, e.Digest)
		if c := j.item.Stat.CTime; c != 0 {
			why += "; the file system says that it was last touched " + formatStamp(c)
		}
		j.found = &Finding{Path: e.Path, Outcome: runs.FileDiffers, Size: e.Size, Digest: j.sum, Cause: why}
	case errors.Is(err, errTaken):
		j.found = movedFinding(e, after.Size(), durable.Nanoseconds(after.ModTime()))
	case errors.Is(err, fs.ErrNotExist):
		j.found = &Finding{Path: e.Path, Outcome: runs.FileRemoved, Size: e.Size, Cause: "it was removed while the source was measured"}
	default:
		j.found = &Finding{Path: e.Path, Outcome: runs.FileFailed, Size: e.Size, Cause: err.Error()}
	}
}

// hashFile hashes a whole file. With errTaken it also returns the file's present
// stat.
func (r *run) hashFile(ctx context.Context, j *job, buf []byte) (fs.FileInfo, error) {
	f, err := scan.Open(r.root, j.entry.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !sameStat(st, j.entry) {
		return st, errTaken
	}
	h := sha256.New()
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		j.read += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if r.limit != nil {
			if err := r.limit.WaitN(ctx, n); err != nil {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	h.Sum(j.sum[:0])
	if st, err = f.Stat(); err != nil {
		return nil, err
	}
	if j.read != j.entry.Size || !sameStat(st, j.entry) {
		return st, errTaken
	}
	return st, nil
}

func sameStat(st fs.FileInfo, e *manifest.Entry) bool {
	return st.Mode().IsRegular() && st.Size() == e.Size && durable.Nanoseconds(st.ModTime()) == e.MTime
}

// treeDigest follows the recipe of docs/format/release.md: the SHA-256 of one
// line per path, as sha256sum prints it.
type treeDigest struct{ h hash.Hash }

func newTreeDigest() treeDigest { return treeDigest{sha256.New()} }

func (t treeDigest) addFile(path string, sum digest.Digest) {
	fmt.Fprintf(t.h, "%x  %s\n", sum[:], path)
}

func (t treeDigest) addDir(path string) { fmt.Fprintf(t.h, "dir  %s\n", path) }

func (t treeDigest) sum() digest.Digest { return digest.Digest(t.h.Sum(nil)) }

// errTaken reports that the file was changed after the walk listed it.
var errTaken = errors.New("it changed while it was read")
