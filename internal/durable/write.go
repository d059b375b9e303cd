package durable

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

const (
	tempPrefix = ".durable-"
	tempSuffix = ".tmp"
)

// IsTemp reports whether a name's last element is a temporary name of this package. A crash can leave such a file.
// A process that holds the folder's [Lock] may delete it.
func IsTemp(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}

// tempName returns an unused name beside name. It is random, so two writers of one file never share it. The last
// rename wins, with its complete content.
func tempName(name string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return path.Join(path.Dir(name), tempPrefix+hex.EncodeToString(b[:])+tempSuffix)
}

// WriteFile replaces a file with data. After a crash or a power cut at any time, the name holds all of the old
// bytes or all of the new ones. After WriteFile has returned nil, it holds the new ones. The folder must exist.
//
// The system calls, on Linux:
//
//	openat(dir, ".durable-….tmp", O_CREAT|O_EXCL)
//	pwrite(…) … fchmod(perm)
//	fsync(file)                  the bytes, before any name can show them
//	renameat(".durable-….tmp", name)
//	fsync(dir)                   the name
//
// Known gaps: WriteFile does not sync the name of a new folder; the caller that made it must (SyncDir of its
// parent). Windows has no fsync of a folder: after a power cut the old bytes may be back. A drive that acknowledges
// a flush without doing it defeats all of this.
//
// A folder or a special file that has the name is set aside (see [SetAside]). A link is refused: see [MakeRoom].
func (r *Root) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return r.WriteStream(name, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteStream is [Root.WriteFile] for content that fill writes. If fill fails, the old file stays and the error is
// returned.
func (r *Root) WriteStream(name string, perm fs.FileMode, fill func(io.Writer) error) (err error) {
	if err := r.check(name, true); err != nil {
		return wrap("write", name, err)
	}
	if _, err := MakeRoom(r, name, false); err != nil {
		return wrap("write", name, err)
	}
	temp := tempName(name)
	f, err := r.create(temp, 0, os.O_EXCL, perm|0o200)
	if err != nil {
		return wrap("write", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.f.Close()
			// Bypass the observer: a test that has "killed" the process at an operation must find the state that a
			// real kill leaves.
			if r.obs == nil {
				_ = r.remove(temp)
			}
		}
	}()
	w := bufio.NewWriterSize(&appender{f: f}, 256<<10)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if perm&0o200 == 0 || !umaskFree {
		// A file system that refuses modes has none, such as a share or exFAT.
		if err := r.Chmod(temp, perm); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := r.Rename(temp, name); err != nil {
		return err
	}
	return r.SyncDir(path.Dir(name))
}

// appender writes a File sequentially from its start.
type appender struct {
	f   *File
	off int64
}

func (a *appender) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.off)
	a.off += int64(n)
	if err == nil && n < len(p) {
		err = errors.New("short write")
	}
	return n, err
}
