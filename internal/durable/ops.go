package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Lstat returns the stat of the name itself, not of a link's target.
func (r *Root) Lstat(name string) (fs.FileInfo, error) {
	if err := r.vet(name, false); err != nil {
		return nil, wrap("stat", name, err)
	}
	var info fs.FileInfo
	err := retake(r, name, false, func() (err error) {
		info, err = r.lstat(name)
		return err
	})
	return info, wrap("stat", name, err)
}

// ReadDir lists a folder, sorted by name; "." is the root itself.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := r.openAny(name)
	if err != nil {
		return nil, err
	}
	list, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, wrap("list", name, err)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// Mkdir makes one folder; its parent must exist.
func (r *Root) Mkdir(name string, perm fs.FileMode) error {
	if err := r.vet(name, false); err != nil {
		return wrap("make folder", name, err)
	}
	if err := r.before(Op{Kind: Mkdir, Name: name, Mode: perm}); err != nil {
		return wrap("make folder", name, err)
	}
	return wrap("make folder", name, r.explain(name, retake(r, name, false, func() error { return r.mkdir(name, perm) })))
}

// MkdirAll makes the folder and its missing parents.
func (r *Root) MkdirAll(name string, perm fs.FileMode) error {
	if name == "." {
		return nil
	}
	info, err := r.Lstat(name)
	switch {
	case err == nil && info.IsDir() && !isLink(info):
		return nil
	case err == nil:
		return fmt.Errorf("make folder %q: something else has that name", name)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := r.MkdirAll(path.Dir(name), perm); err != nil {
		return err
	}
	// Another goroutine may have made it meanwhile. If a link was planted meanwhile, the next operation below it
	// refuses it.
	if err := r.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Rename moves a file or folder to a new name. It replaces a file (also a read-only one) but never a folder. It is
// atomic. It survives a power cut only if both parent folders have been synced. It can change only the case of a
// name.
//
// Known gap: if the system keeps the old case (Wine 8), a case-only rename takes two steps. A crash between them
// leaves the file under a temporary name ([IsTemp]).
func (r *Root) Rename(from, to string) error { return r.move(from, to, r.rename) }

// Remove deletes a file (also a read-only one), an empty folder, or a link itself.
func (r *Root) Remove(name string) error {
	if err := r.check(name, false); err != nil {
		return wrap("remove", name, err)
	}
	if err := r.before(Op{Kind: Remove, Name: name}); err != nil {
		return wrap("remove", name, err)
	}
	return wrap("remove", name, r.explain(name, retake(r, name, false, func() error { return r.remove(name) })))
}

// RemoveAll deletes a name and everything below it, without following links. A missing name is not an error. It
// continues after an error and returns all errors.
func (r *Root) RemoveAll(name string) error {
	info, err := r.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	if info.IsDir() && !isLink(info) {
		list, err := r.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range list {
			errs = append(errs, r.RemoveAll(path.Join(name, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil || name == "." {
		return err
	}
	if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Chmod sets the permission bits; on Windows only the owner's write bit counts
// (the read-only attribute).
func (r *Root) Chmod(name string, mode fs.FileMode) error {
	if err := r.vet(name, true); err != nil {
		return wrap("set mode of", name, err)
	}
	if err := r.before(Op{Kind: Chmod, Name: name, Mode: mode}); err != nil {
		return wrap("set mode of", name, err)
	}
	return wrap("set mode of", name, r.chmod(name, mode))
}

// HasAccessList reports whether a file has a POSIX access list that holds more than its permission bits. Its group
// bits are then the list's mask.
func HasAccessList(r *Root, name string) bool { return hasAccessList(r, name) }

// SameMode reports whether a file's permission bits match the mode want, as far as its file system keeps modes. If
// the file has an access list, its group bits are the list's mask, which belongs to the list's author and is
// ignored.
func SameMode(r *Root, keeps *Traits, name string, have, want uint16) bool {
	have &= 0o777
	return !keeps.Modes || have == want || (have^want)&0o707 == 0 && HasAccessList(r, name)
}

// SetMode sets a file's permission bits to want, if they differ. It keeps the mask of an access list and a folder's
// setgid and sticky bits.
func SetMode(r *Root, keeps *Traits, name string, info fs.FileInfo, want uint16) error {
	if SameMode(r, keeps, name, uint16(info.Mode().Perm()), want) {
		return nil
	}
	mode := fs.FileMode(want)
	if info.IsDir() {
		mode |= info.Mode() & (fs.ModeSetgid | fs.ModeSticky)
	}
	if HasAccessList(r, name) {
		mode = mode&^0o070 | info.Mode()&0o070
	}
	return r.Chmod(name, mode)
}

// HasOtherNames reports whether a file has further hard links. A change of its mode or time shows under all of them.
func HasOtherNames(r *Root, name string, info fs.FileInfo) (bool, error) {
	n, err := r.links(name, info)
	return n > 1, wrap("count the links of", name, err)
}

// Chtimes sets the modification time, as precisely as the file system stores it (100 ns on NTFS). It does not
// change the access time.
func (r *Root) Chtimes(name string, mtime time.Time) error {
	if err := r.vet(name, true); err != nil {
		return wrap("set time of", name, err)
	}
	if err := r.before(Op{Kind: Chtimes, Name: name, Time: mtime}); err != nil {
		return wrap("set time of", name, err)
	}
	return wrap("set time of", name, r.chtimes(name, mtime))
}

// SyncDir makes the names in a folder survive a power cut. Windows has no such call for an ordinary account, so
// SyncDir does nothing there. NTFS's journal orders the changes of names, but may lose the latest ones.
func (r *Root) SyncDir(name string) error {
	if err := r.before(Op{Kind: SyncDir, Name: name}); err != nil {
		return wrap("sync folder", name, err)
	}
	return wrap("sync folder", name, r.syncDir(name))
}

// SyncAll makes all earlier writes to the root's volume survive a power cut, if the system can (Linux: syncfs).
// Otherwise it does nothing, and [NeedsFileSync] requires writers to sync each file.
func (r *Root) SyncAll() error {
	if err := r.before(Op{Kind: SyncAll, Name: "."}); err != nil {
		return wrap("sync volume of", r.dir, err)
	}
	return wrap("sync volume of", r.dir, r.syncAll())
}

// NeedsFileSync reports whether SyncAll is not reliable here, so that each writer must sync its own files and
// folders. That holds for systems other than Linux, kernels before 5.8, and file systems that do not flush the disk
// or hide errors.
func NeedsFileSync(r *Root) bool { return !r.whole }

// Free returns the number of bytes that this account may still write to the root's volume.
func (r *Root) Free() (int64, error) {
	n, err := r.free()
	return n, wrap("read free space of", r.dir, err)
}

// SameVolume reports whether a folder is on the root's own volume, so that renames between the two work.
func (r *Root) SameVolume(name string) (bool, error) {
	same, err := r.sameVolume(name)
	return same, wrap("find volume of", name, err)
}

// ProbeLocked returns nil if the file can be replaced or deleted now, or does not exist. If it returns an error,
// [IsLocked] reports whether waiting can help. On Windows it requests the right to delete while sharing everything.
// On Unix an open file is no obstacle; on Linux a file or folder with the attribute immutable or append-only is
// ([ErrImmutable]).
func (r *Root) ProbeLocked(name string) error {
	err := r.check(name, true)
	if err == nil {
		err = r.before(Op{Kind: Probe, Name: name})
	}
	if err == nil {
		err = r.probe(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return wrap("probe", name, err)
}
