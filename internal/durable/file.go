package durable

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// File is a file open for writing. WriteAt is safe for concurrent use.
type File struct {
	f    *os.File
	r    *Root
	name string
}

// Create creates the file, or empties an existing one. Under any umask, only the owner may write to it. With size >
// 0 it also sets the length. Unwritten bytes then read as zero, and take no space if the file system supports that.
func (r *Root) Create(name string, size int64) (*File, error) {
	return r.create(name, size, os.O_TRUNC, 0o644)
}

// CreatePrivate is [Root.Create] for a file that only its owner may read.
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
		return nil, wrap("create", name, r.explain(name, err))
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

// Append opens a regular file for writing at its end and creates it if it is missing. It follows no link.
func Append(r *Root, name string, perm fs.FileMode) (*os.File, error) {
	if err := r.vet(name, true); err != nil {
		return nil, wrap("open", name, err)
	}
	if err := r.before(Op{Kind: Create, Name: name, Mode: perm}); err != nil {
		return nil, wrap("open", name, err)
	}
	f, err := openOurs(r, name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|dontWait, perm)
	if err != nil {
		return nil, wrap("open", name, err)
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

// Open opens a regular file for reading and refuses any other kind, so that a planted pipe cannot block the reader.
// On Windows, other processes may rename and delete the file meanwhile.
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

// openAny opens a name of any kind for reading. It does not wait for a pipe's writer, but it waits until a lease on
// the file is released.
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

// Name returns the name under which the file was opened.
func (f *File) Name() string { return f.name }

// WriteAt writes p at byte offset off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.r.before(Op{Kind: Write, Name: f.name, Off: off, Data: p}); err != nil {
		return 0, wrap("write", f.name, err)
	}
	n, err := f.f.WriteAt(p, off)
	return n, wrap("write", f.name, err)
}

// ReadAt reads len(p) bytes at byte offset off. At the end of the file it returns io.EOF itself.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Truncate sets the length, in bytes.
func (f *File) Truncate(size int64) error {
	if err := f.r.before(Op{Kind: Truncate, Name: f.name, Size: size}); err != nil {
		return wrap("truncate", f.name, err)
	}
	return wrap("truncate", f.name, f.f.Truncate(size))
}

// SetSparse lets unwritten ranges of the file take no space. Only NTFS needs the call; elsewhere it does nothing.
// It returns no error if the file system does not support it.
func (f *File) SetSparse() error { return wrap("make sparse", f.name, setSparse(f.f)) }

// Sync makes the file's bytes and length survive a power cut. Its name survives only if its folder is synced too.
func (f *File) Sync() error {
	if err := f.r.before(Op{Kind: SyncFile, Name: f.name}); err != nil {
		return wrap("sync", f.name, err)
	}
	return wrap("sync", f.name, f.f.Sync())
}

// Chmod sets the permission bits of the open file, as [Root.Chmod] does by name.
func (f *File) Chmod(mode fs.FileMode) error {
	if err := f.r.before(Op{Kind: Chmod, Name: f.name, Mode: mode}); err != nil {
		return wrap("set mode of", f.name, err)
	}
	return wrap("set mode of", f.name, f.f.Chmod(mode))
}

// Chtimes sets the modification time of the open file, as [Root.Chtimes] does by name. A later write changes it again.
func (f *File) Chtimes(mtime time.Time) error {
	if err := f.r.before(Op{Kind: Chtimes, Name: f.name, Time: mtime}); err != nil {
		return wrap("set time of", f.name, err)
	}
	return wrap("set time of", f.name, f.chtimes(mtime))
}

// Stat returns the open file's stat.
func (f *File) Stat() (fs.FileInfo, error) {
	info, err := f.f.Stat()
	return info, wrap("stat", f.name, err)
}

// Close closes the file without syncing it.
func (f *File) Close() error { return wrap("close", f.name, f.f.Close()) }
