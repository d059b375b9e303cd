package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrUntrusted: an untrusted account owns a file, a folder or a folder above it, or may change one of them. Trusted
// accounts are this process's account and root; on Windows also SYSTEM and the administrators.
var ErrUntrusted = errors.New("another account can change it")

// ReadTrusted reads a file, of at most limit bytes, whose content decides the behavior of this process. It refuses
// a file that an untrusted account could have written or replaced ([ErrUntrusted]). On Unix it follows links that
// a trusted account made; on Windows it refuses a link ([ErrLink]). It checks the file by the handle from which it
// reads.
func ReadTrusted(path string, limit int64) ([]byte, error) {
	return readTrusted("read", path, limit, judgeLast)
}

// ReadPrivate is ReadTrusted for a key file: it also refuses a file that other accounts can read ([ErrExposed]).
func ReadPrivate(path string, limit int64) ([]byte, error) {
	return readTrusted("read key file", path, limit, judgePrivate, judgeLast)
}

func readTrusted(act, path string, limit int64, judges ...func(*opened) error) (_ []byte, err error) {
	f, err := openTrusted(path, true, noAccount)
	if err != nil {
		return nil, wrap(act, path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, wrap(act, path, err)
	case !info.Mode().IsRegular():
		return nil, wrap(act, path, ErrNotRegular)
	}
	for _, refuse := range judges {
		if err := refuse(f); err != nil {
			return nil, wrap(act, path, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: at most %d bytes", ErrTooLarge, limit)
	}
	return b, wrap(act, path, err)
}

// CheckTrusted checks a file or folder that another program will use, such as the executable of a service.
func CheckTrusted(path string) error {
	f, err := openTrusted(path, true, noAccount)
	if err == nil {
		err = errors.Join(judgeLast(f), f.Close())
	}
	return wrap("check", path, err)
}

// judgeFolder refuses a folder that an untrusted account can change now, or has put an entry into before. It also
// trusts keeper.
func judgeFolder(path string, now fs.FileInfo, keeper account) error {
	f, err := openTrusted(path, false, keeper)
	if err != nil {
		return err
	}
	if info, serr := f.Stat(); serr != nil {
		err = serr
	} else if !os.SameFile(info, now) {
		err = errors.New("it was replaced while it was opened: try again")
	} else if err = judgeLast(f); err == nil {
		err = judgeEntries(f, path)
	}
	return errors.Join(err, f.Close())
}
