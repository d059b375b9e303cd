package durable

import (
	"errors"
	"io/fs"
	"os"
)

// File is a file open for writing. WriteAt may be called by several goroutines
// at once.
type File struct {
	f    *os.File
	r    *Root
	name string
}

// Create creates the file, or empties the one that is there. Whatever the umask
// is, only the owner may write to it. With size > 0 it also sets the length: the
// bytes not yet written read as zero and take no space where the file system can
// do that.
func (r *Root) Create(name string, size int64) (*File, error) {
	return r.create(name, size, os.O_TRUNC, 0o644)
}

// CreatePrivate is [Root.Create] for a file that only its owner may read, too.
func CreatePrivate(r *Root, name string, size int64) (*File, error) {
	return r.create(name, size, os.O_TRUNC, 0o600)
}

func (r *Root) create(name string, size int64, flag int, perm fs.FileMode) (*File, error) {
	if err := r.vet(name, true); err != nil {
		return nil, wrap("create", name, err)
	}
	if err := r.before(Op{Kind: Create, Name: name, Size: size, Mode: perm}); err != nil {
		return nil, wrap("create", name, err)
	}
	f, err := openOurs(r, name, os.O_RDWR|os.O_CREATE|flag, perm)
	if err != nil {
		return nil, wrap("create", name, err)
	}
	if size > 0 {
		if err := f.Truncate(size); err != nil {
			_ = f.Close()
			return nil, wrap("set the length of", name, err)
		}
	}
	return &File{f: f, r: r, name: name}, nil
}

// OpenRW opens an existing file for reading and writing.
func (r *Root) OpenRW(name string) (*File, error) {
	if err := r.vet(name, true); err != nil {
		return nil, wrap("open", name, err)
	}
	f, err := openOurs(r, name, os.O_RDWR, 0)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	return &File{f: f, r: r, name: name}, nil
}

// Open opens a regular file for reading and refuses all else: a pipe that
// somebody planted must not hold its reader up. On Windows others may rename and
// delete the file meanwhile.
func (r *Root) Open(name string) (*os.File, error) {
	f, err := r.openAny(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotRegular
	}
	if err != nil {
		return nil, errors.Join(wrap("open", name, err), f.Close())
	}
	return f, nil
}

// openAny opens whatever has the name for reading. It waits for no writer of a
// pipe, but for whoever must give a file back.
func (r *Root) openAny(name string) (*os.File, error) {
	if err := r.vet(name, true); err != nil {
		return nil, wrap("open", name, err)
	}
	f, err := openOurs(r, name, os.O_RDONLY|dontWait, 0)
	if isLeased(err) {
		f, err = r.openFile(name, os.O_RDONLY, 0)
	}
	return f, wrap("open", name, err)
}

// openOurs is openFile for a file that may be below Options.Ours.
func openOurs(r *Root, name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = retake(r, name, true, func() error {
		f, err = r.openFile(name, flag, perm)
		return err
	})
	return f, err
}

// Name returns the name that the file was opened by.
func (f *File) Name() string { return f.name }

// WriteAt writes p at byte off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.r.before(Op{Kind: Write, Name: f.name, Off: off, Data: p}); err != nil {
		return 0, wrap("write", f.name, err)
	}
	n, err := f.f.WriteAt(p, off)
	return n, wrap("write", f.name, err)
}

// ReadAt reads len(p) bytes at byte off; at the end of the file the error is
// io.EOF itself.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Truncate sets the length, in bytes.
func (f *File) Truncate(size int64) error {
	if err := f.r.before(Op{Kind: Truncate, Name: f.name, Size: size}); err != nil {
		return wrap("truncate", f.name, err)
	}
	return wrap("truncate", f.name, f.f.Truncate(size))
}

// SetSparse lets unwritten ranges of the file take no space. Only NTFS must be
// told; elsewhere it does nothing. A file system that cannot is no error.
func (f *File) SetSparse() error { return wrap("make sparse", f.name, setSparse(f.f)) }

// Sync makes the file's bytes and length survive a power cut. Its name
// survives only when its folder has been synced too.
func (f *File) Sync() error {
	if err := f.r.before(Op{Kind: SyncFile, Name: f.name}); err != nil {
		return wrap("sync", f.name, err)
	}
	return wrap("sync", f.name, f.f.Sync())
}

// Stat describes the open file.
func (f *File) Stat() (fs.FileInfo, error) {
	info, err := f.f.Stat()
	return info, wrap("stat", f.name, err)
}

// Close closes the file without syncing it.
func (f *File) Close() error { return wrap("close", f.name, f.f.Close()) }
