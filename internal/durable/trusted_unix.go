//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks limits the links in a path, as the kernel does.
const maxLinks = 40

// account is the id of a further account that is trusted; root's means none.
type account = uint32

const noAccount account = 0

// keeperOf finds no further account: on Unix, root becomes that account instead.
func keeperOf(string) account { return noAccount }

// openTrusted opens path for reading after it has checked every folder above by its handle. It follows links that a
// trusted account made; with follow unset, path itself must not be a link. It does not check the file itself. It also
// trusts keeper.
func openTrusted(path string, follow bool, keeper account) (*opened, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w := walker{dir: -1, keeper: keeper}
	defer w.close()
	rest := elements(abs)
	if err := w.restart(); err != nil {
		return nil, err
	}
	for links := 0; ; {
		step := w.step
		if len(rest) <= 1 {
			f, err := w.last(rest, abs)
			if !follow || !errors.Is(err, ErrLink) {
				return &opened{f, w.shut, w.loose, keeper}, err
			}
			step = w.link
		}
		text, err := step(rest[0])
		if err != nil {
			return nil, err
		}
		rest = rest[1:]
		if text == "" {
			continue
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if !filepath.IsAbs(text) {
			text = w.at + "/" + text
		}
		rest = append(elements(text), rest...)
		if err := w.restart(); err != nil {
			return nil, err
		}
	}
}

// elements splits an absolute path. It keeps "..", which the kernel resolves.
func elements(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// walker holds the current folder of a path.
type walker struct {
	dir  int    // handle; -1: none
	at   string // its path, without links
	shut bool   // other accounts cannot reach it
	// Any account can make entries in it, so an entry of keeper may not be the one that was meant.
	loose  bool
	keeper account
}

func (w *walker) close() {
	if w.dir >= 0 {
		_ = unix.Close(w.dir)
	}
	w.dir = -1
}

func (w *walker) restart() error {
	w.close()
	fd, err := unix.Open("/", walkFlags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	w.dir, w.at, w.shut, w.loose = fd, "", false, false
	return w.judge(fd, "/")
}

// step enters a folder, or returns the text of a link.
func (w *walker) step(name string) (link string, err error) {
	if name == "." {
		return "", nil
	}
	at := w.at + "/" + name
	fd, err := unix.Openat(w.dir, name, walkFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) { // not on Linux, which opens the link itself
		return w.link(name)
	}
	if err != nil {
		return "", fmt.Errorf("%q: %w", at, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", errors.Join(err, unix.Close(fd))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		_ = unix.Close(fd)
		return w.link(name)
	}
	if name == ".." {
		w.shut = false
	}
	w.close()
	w.dir, w.at = fd, at
	return "", w.judge(fd, at)
}

// link reads a link and requires that a trusted account made it.
func (w *walker) link(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(w.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", err
	}
	if !trusts(st.Uid) && (st.Uid != w.keeper || w.loose) {
		return "", foreign("link", w.at+"/"+name, st.Uid)
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.dir, name, b)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(b[:max(n, 0)]), err
}

// judge refuses a folder in which other accounts could replace the entries below. In a sticky folder (/tmp) they
// can replace only their own entries. If they cannot reach the folder, only its owner is checked.
func (w *walker) judge(fd int, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mode := uint32(st.Mode)
	switch {
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%q: %w", at, unix.ENOTDIR)
	case !trusts(st.Uid) && (st.Uid != w.keeper || w.loose):
		return foreign("folder", at, st.Uid)
	case mode&0o022 == 0, mode&unix.S_ISVTX != 0, w.shut, mode&0o002 == 0 && trustsGroup(st.Gid), readOnly(fd):
	default:
		return writable("folder", at, &st)
	}
	w.shut, w.loose = w.shut || mode&0o011 == 0, mode&0o022 != 0
	return nil
}

// last opens the path's last element in the folder that was reached.
func (w *walker) last(rest []string, abs string) (*os.File, error) {
	name := "."
	if len(rest) == 1 {
		name = rest[0]
	}
	fd, err := unix.Openat(w.dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) {
		return nil, fmt.Errorf("%w: name the link's target instead", ErrLink)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), abs), nil
}

func judgeLast(f *opened) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	mode := uint32(st.Mode)
	shut := f.shut && (st.Nlink == 1 || mode&unix.S_IFMT == unix.S_IFDIR) // another name of a file may be elsewhere
	switch {
	case !trusts(st.Uid) && (st.Uid != f.keeper || f.loose):
		return foreign("it", "", st.Uid)
	case mode&0o022 != 0 && !shut && !readOnly(int(f.Fd())):
		return writable("it", "", &st)
	}
	return nil
}

// judgePrivate refuses a key that other accounts can read. On a read-only mount, root may let a group read it: so
// does Kubernetes with the Secrets of a container that has an account of its own.
func judgePrivate(f *opened) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	mode := uint32(st.Mode)
	if mode&0o077 == 0 || mode&0o037 == 0 && st.Uid == 0 && os.Geteuid() != 0 && readOnly(int(f.Fd())) {
		return nil
	}
	return fmt.Errorf("%w (mode %04o): chmod 600 it, and replace the key if others may have copied it", ErrExposed, mode&0o777)
}

// judgeEntries refuses a folder that holds an entry of another account, or a link. It was put there before the
// folder was closed to others.
func judgeEntries(f *opened, dir string) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch at := filepath.Join(dir, name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("%q: %w", at, err)
		case !trusts(st.Uid) && st.Uid != f.keeper:
			return foreign("file", at, st.Uid)
		case uint32(st.Mode)&unix.S_IFMT == unix.S_IFLNK:
			return fmt.Errorf("%w at %q: remove it", ErrLink, at)
		}
	}
	return nil
}

// trusts reports whether an account may decide the behavior of this process.
func trusts(uid uint32) bool { return uid == 0 || int64(uid) == int64(os.Geteuid()) }

func foreign(what, at string, uid uint32) error {
	name := strconv.FormatUint(uint64(uid), 10)
	as := "account " + name
	if u, err := user.LookupId(name); err == nil {
		name, as = u.Username, "sudo -u "+u.Username
	}
	return fmt.Errorf("%w: %s belongs to account %s (run this command as that account, %s, or give it to this one)", ErrUntrusted, thing(what, at), name, as)
}

func writable(what, at string, st *unix.Stat_t) error {
	mode, remedy := uint32(st.Mode), "chmod go-w it, after a look at its content"
	if what == "folder" {
		remedy = "chmod go-w it, or chmod +t it if others need to write there, after a look at its content"
	}
	group := ""
	if mode&0o002 == 0 {
		group = " and group " + strconv.FormatUint(uint64(st.Gid), 10)
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(st.Gid), 10)); err == nil {
			group = " and group " + g.Name
		}
	}
	return fmt.Errorf("%w: %s has mode %04o%s (%s)", ErrUntrusted, thing(what, at), mode&0o7777, group, remedy)
}

func thing(what, at string) string {
	if at == "" {
		return what
	}
	return fmt.Sprintf("%s %q", what, at)
}

// closeFolder closes an existing folder to other accounts, if its owner is trusted.
func closeFolder(path string) error {
	f, err := openTrusted(path, false, noAccount)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		switch {
		case uint32(st.Mode)&unix.S_IFMT != unix.S_IFDIR:
			err = unix.ENOTDIR
		case !trusts(st.Uid):
			err = foreign("it", "", st.Uid)
		case uint32(st.Mode)&0o777 != 0o700:
			err = closeEmpty(f.File)
		}
	}
	return errors.Join(err, f.Close())
}

// closeEmpty takes other accounts' access to an open folder away. A folder that others may enter and that already holds something is
// refused: it may be /srv or /var/lib, on which other programs rely.
func closeEmpty(f *os.File) error {
	switch _, err := f.Readdirnames(1); {
	case errors.Is(err, io.EOF):
		return f.Chmod(0o700)
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: it is not empty and not private (choose an empty or a new folder; if it holds only files of nightferry, chmod 0700 it)", ErrUntrusted)
}

// opened is a file or folder at the end of a path whose folders were checked.
type opened struct {
	*os.File
	shut   bool // a folder above keeps all untrusted accounts out
	loose  bool // any account could have made it
	keeper account
}
