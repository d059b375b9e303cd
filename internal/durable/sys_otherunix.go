//go:build unix && !linux

package durable

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// No call flushes a whole volume and waits for it.
func syncsWhole(*os.File) bool { return false }

func hasAccessList(*Root, string) bool { return false }

// legacy is empty: on this system a renamed file keeps its own rights.
type legacy struct{}

func legacyOf(*Root, string) legacy                                    { return legacy{} }
func endow(*Root, string, string, bool, legacy, legacy) (after func()) { return nil }

func keepsInodes(*Root) bool { return true }

func (f *folder) syncAll() error { return nil }

// walkFlags open a folder, which must be readable, because there is no O_PATH.
const walkFlags = unix.O_RDONLY | unix.O_NONBLOCK

func looksUpInOne(*os.File) bool { return false }

func (f *folder) openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return f.root.OpenFile(name, flag, perm)
}

func (f *folder) lstat(name string) (fs.FileInfo, error)    { return f.root.Lstat(name) }
func (f *folder) mkdir(name string, perm fs.FileMode) error { return f.root.Mkdir(name, perm) }
func (f *folder) rename(from, to string) error              { return f.root.Rename(from, to) }
func (f *folder) renameNew(from, to string) error           { return f.renameByLink(from, to) }
func (f *folder) chmod(name string, mode fs.FileMode) error { return f.root.Chmod(name, mode) }

func (f *folder) chtimes(name string, mtime time.Time) error {
	return f.root.Chtimes(name, time.Time{}, mtime)
}

func (f *File) chtimes(mtime time.Time) error { return f.r.chtimes(f.name, mtime) }

func (f *folder) checkChain(name string) error { return f.checkEach(name) }

func (f *folder) sameVolume(name string) (bool, error) {
	if err := f.check(name, true); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.self.Fd()), &st); err != nil {
		return false, err
	}
	info, err := f.lstat(name)
	if err != nil {
		return false, err
	}
	return deviceOf(info) == uint64(st.Dev), nil
}

func (f *folder) probe(name string) error {
	_, err := f.lstat(name)
	return err
}

func (f *folder) explain(_ string, err error) error { return err }
