package bucket

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

const (
	// tempDir holds unfinished files, hidden from List and on the same volume as the objects.
	tempDir  = ".nightferry-tmp"
	lockName = tempDir + "/lock"
	// tagLimit bounds the bytes that a Get hashes to return an ETag. Objects moved by compare-and-swap are far
	// smaller.
	tagLimit = 8 << 20
	// staleTemp is the age at which a temporary file belongs to no running Put: no Put takes so long.
	staleTemp = 24 * time.Hour
)

// dirStore keeps each object as a file.
//
// Put writes a temporary file, syncs it, renames it to the key and syncs the folders. Readers therefore see the whole
// old object or the whole new one, even after a power cut. Conditional Puts of all processes take turns on one lock
// file between their check and their rename. The ETag is the SHA-256 of the content.
type dirStore struct {
	root  *durable.Root
	clock *durable.Root // the same folder, unobserved: for files that only show the time
	turn  chan struct{} // holds one token: this process's turn at the lock file
	dirs  sync.Map      // folders known to exist and to be synced
	sweep sync.Once
}

func openDir(raw string, o Options) (Store, error) {
	dir, err := dirOf(raw)
	if err != nil {
		return nil, &Error{Op: "open", Key: redactURL(raw), Kind: KindOther, Err: err, Hint: "give file:///DIR"}
	}
	root, err := durable.Open(dir, durable.Options{Create: o.Create, Observer: o.Observer})
	if err != nil {
		e := dirError("open", dir, err)
		if e.Kind == KindNotExist {
			e.Err, e.Hint = errors.New("no such folder"), "check the path: is the volume mounted?"
		}
		return nil, e
	}
	clock, err := durable.Open(dir, durable.Options{})
	if err != nil {
		return nil, errors.Join(dirError("open", dir, err), root.Close())
	}
	d := &dirStore{root: root, clock: clock, turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	return d, nil
}

// Get reads small whole objects into memory, so that the ETag belongs to exactly the returned bytes. It streams all
// others.
func (d *dirStore) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Info, error) {
	if err := checkGet(ctx, key, n, off); err != nil {
		return nil, Info{}, err
	}
	f, err := d.root.Open(key)
	if err != nil {
		return nil, Info{}, dirError("get", key, err)
	}
	info, err := d.statFile(key, f)
	if err != nil {
		f.Close()
		return nil, Info{}, dirError("get", key, err)
	}
	whole := off == 0 && n < 0
	first, length, err := resolveRange(info.Size, off, n)
	if err != nil {
		f.Close()
		return nil, Info{}, rangeError(key, info.Size, off, n)
	}
	if whole && length <= tagLimit {
		defer f.Close()
		b := make([]byte, length)
		if _, err := io.ReadFull(f, b); err != nil {
			return nil, Info{}, dirError("get", key, err)
		}
		info.ETag, info.Date = digest.Of(b).String(), d.serverTime()
		return io.NopCloser(bytes.NewReader(b)), info, nil
	}
	return &dirBody{ctx: ctx, key: key, f: f, r: io.NewSectionReader(f, first, length), left: length}, info, nil
}

func (d *dirStore) statFile(key string, f *os.File) (Info, error) {
	fi, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	return d.fileInfo(key, fi), nil
}

func (d *dirStore) fileInfo(key string, fi fs.FileInfo) Info {
	return Info{Key: key, Size: fi.Size(), Modified: fi.ModTime()}
}

// serverTime returns the time of the file server, taken from a file just made there.
// Modified uses the same clock. This machine's clock may differ, and other
// machines use the store too. Zero if this account may not write.
func (d *dirStore) serverTime() time.Time {
	if d.mkdirDurable(tempDir) != nil {
		return time.Time{}
	}
	temp := tempDir + "/" + crand.Text()
	f, err := d.clock.Create(temp, 0)
	if err != nil {
		return time.Time{}
	}
	defer func() { _ = d.clock.Remove(temp) }() // otherwise removeStale removes it later
	fi, err := f.Stat()
	if errors.Join(err, f.Close()) != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// dirBody reads a range of a file and requires all of it: it is an error if another program shortens the file.
type dirBody struct {
	ctx  context.Context
	key  string
	f    *os.File
	r    io.Reader
	left int64
}

func (b *dirBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, dirError("get", b.key, err)
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = &Error{Op: "get", Key: b.key, Kind: KindIntegrity, Err: fmt.Errorf("%w: %d bytes are missing: %w", errShort, b.left, io.ErrUnexpectedEOF)}
	} else if err != nil && err != io.EOF {
		err = dirError("get", b.key, err)
	}
	return n, err
}

func (b *dirBody) Close() error { return b.f.Close() }

func (d *dirStore) Put(ctx context.Context, key string, body Body, cond Cond) (Info, error) {
	if err := checkPut(ctx, key, body); err != nil {
		return Info{}, err
	}
	info, err := d.putFile(ctx, key, body, cond)
	if err != nil {
		return Info{}, dirError("put", key, err)
	}
	return info, nil
}

func (d *dirStore) putFile(ctx context.Context, key string, body Body, cond Cond) (Info, error) {
	if cond.Absent { // avoid the write if the condition already fails; the decisive check is made under the lock
		if err := d.checkCond(key, cond); err != nil {
			return Info{}, err
		}
	}
	if err := d.mkdirDurable(tempDir); err != nil {
		return Info{}, err
	}
	temp := tempDir + "/" + crand.Text()
	written, err := d.writeTemp(ctx, temp, body)
	if err != nil {
		d.discardTemp(temp)
		return Info{}, err
	}
	d.sweep.Do(func() { d.removeStale(written.ModTime()) })
	if err := d.placeFile(ctx, temp, key, cond); err != nil {
		d.discardTemp(temp)
		return Info{}, err
	}
	if err := d.root.SyncDir(path.Dir(key)); err != nil {
		return Info{}, err
	}
	return Info{Key: key, Size: body.Size, ETag: body.SHA256.String(), Modified: written.ModTime(), Date: written.ModTime()}, nil
}

// writeTemp fills temp with the body, syncs it, and checks it against the given digest.
func (d *dirStore) writeTemp(ctx context.Context, temp string, body Body) (fs.FileInfo, error) {
	f, err := d.root.Create(temp, 0)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(&appender{f: f}, sum), &ctxReader{ctx, io.LimitReader(body.R, body.Size)}, make([]byte, 256<<10))
	if err == nil && n != body.Size {
		err = &Error{Kind: KindIntegrity, Err: fmt.Errorf("%w: %d of %d bytes", errShort, n, body.Size)}
	}
	if err == nil && digest.Digest(sum.Sum(nil)) != body.SHA256 {
		err = &Error{Kind: KindIntegrity, Err: errChecksum}
	}
	if err == nil {
		err = f.Sync()
	}
	fi, statErr := f.Stat()
	return fi, errors.Join(err, statErr, f.Close())
}

// placeFile renames temp to key if cond holds.
func (d *dirStore) placeFile(ctx context.Context, temp, key string, cond Cond) error {
	if err := d.mkdirDurable(path.Dir(key)); err != nil {
		return err
	}
	if cond == (Cond{}) {
		return d.retryShared(ctx, func() error { return d.root.Rename(temp, key) })
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	if err = d.checkCond(key, cond); err == nil {
		err = d.retryShared(ctx, func() error { return d.root.Rename(temp, key) })
	}
	return errors.Join(err, unlock())
}

// retryShared retries for some seconds an operation that another program's open file prevents. On Windows no program
// can replace or delete an object while another, such as a virus scanner, has it open without permission to do so.
func (d *dirStore) retryShared(ctx context.Context, do func() error) error {
	err := do()
	for wait := lockPollMin; err != nil && durable.IsLocked(err) && wait < 4*time.Second; wait *= 2 {
		if sleepErr := sleep(ctx, wait/2+rand.N(wait)); sleepErr != nil {
			return sleepErr
		}
		err = do()
	}
	return err
}

// Close releases the folder, which cannot be removed on Windows while it is open. The store must not be used again.
func (d *dirStore) Close() error { return errors.Join(d.root.Close(), d.clock.Close()) }

// checkCond reports whether cond holds for the current object under key.
func (d *dirStore) checkCond(key string, cond Cond) error {
	f, err := d.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		if cond.ETag != "" {
			return &Error{Kind: KindPrecondition, Err: errChanged}
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if cond.Absent {
		return &Error{Kind: KindPrecondition, Err: errExists}
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != cond.ETag {
		return &Error{Kind: KindPrecondition, Err: errChanged}
	}
	return nil
}

// mkdirDurable makes a folder and its parents durable, once per process.
func (d *dirStore) mkdirDurable(dir string) error {
	if dir == "." {
		return nil
	}
	if _, ok := d.dirs.Load(dir); ok {
		return nil
	}
	if err := d.mkdirDurable(path.Dir(dir)); err != nil {
		return err
	}
	if err := d.root.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.root.SyncDir(path.Dir(dir)); err != nil {
		return err
	}
	d.dirs.Store(dir, true)
	return nil
}

// discardTemp removes a temporary file after a failed Put. If that fails too, removeStale removes it later.
func (d *dirStore) discardTemp(temp string) { _ = d.root.Remove(temp) }

// removeStale removes files of processes that died during a write. Files that it cannot remove now are left for a
// later call.
func (d *dirStore) removeStale(now time.Time) {
	entries, _ := d.root.ReadDir(tempDir)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && tempDir+"/"+e.Name() != lockName && now.Sub(fi.ModTime()) > staleTemp {
			_ = d.root.Remove(tempDir + "/" + e.Name())
		}
	}
}

// Delete does not sync the folder: an object that comes back after a power cut is garbage, never damage.
func (d *dirStore) Delete(ctx context.Context, key string) error {
	if err := checkKey("delete", key); err != nil {
		return err
	}
	err := ctx.Err()
	if err == nil {
		var fi fs.FileInfo
		if fi, err = d.root.Lstat(key); err == nil && fi.Mode().IsRegular() { // a folder of other keys is no object
			err = d.retryShared(ctx, func() error { return d.root.Remove(key) })
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dirError("delete", key, err)
	}
	return nil
}

// appender writes a file from its start on.
type appender struct {
	f   *durable.File
	off int64
}

func (a *appender) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.off)
	a.off += int64(n)
	return n, err
}

// ctxReader ends a copy when its context does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
