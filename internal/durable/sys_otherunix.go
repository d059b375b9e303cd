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

func (r *Root) syncAll() error { return nil }

// walkFlags open a folder, which must be readable, because there is no O_PATH.
const walkFlags = unix.O_RDONLY | unix.O_NONBLOCK

func looksUpInOne(*os.File) bool { return false }

func (r *Root) openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return r.root.OpenFile(name, flag, perm)
}

func (r *Root) lstat(name string) (fs.FileInfo, error)    { return r.root.Lstat(name) }
func (r *Root) mkdir(name string, perm fs.FileMode) error { return r.root.Mkdir(name, perm) }
func (r *Root) rename(from, to string) error              { return r.root.Rename(from, to) }
func (r *Root) chtimes(name string, mtime time.Time) error {
	return r.root.Chtimes(name, time.Time{}, mtime)
}

func (r *Root) checkChain(name string) error { return r.checkEach(name) }

func (r *Root) sameVolume(name string) (bool, error) {
	if err := r.check(name, true); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.self.Fd()), &st); err != nil {
		return false, err
	}
	info, err := r.lstat(name)
	if err != nil {
		return false, err
	}
	return deviceOf(info) == uint64(st.Dev), nil
}

func (r *Root) probe(name string) error {
	_, err := r.lstat(name)
	return err
}
