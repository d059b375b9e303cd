package durable

import (
	"fmt"
	"io/fs"
	"os"
)

// folder makes the system calls below one folder; each system has its own methods. It refuses links, but knows no
// observer and restores no rights: those belong to Root.
type folder struct {
	root *os.Root
	dir  string
	self *os.File // the folder itself, for the calls that os.Root does not have
	one  bool     // one system call looks a name up and refuses links
}

// check refuses a name that is not a plain relative path, or whose path contains a link. With last, the name's last
// element must not be a link either. A name that does not exist passes: the operation reports it. os.Root already
// prevents paths that leave the root; check also refuses links that stay inside. A link planted between check and
// use therefore still cannot lead outside.
func (f *folder) check(name string, last bool) error {
	if !fs.ValidPath(name) || !localName(name) {
		return fmt.Errorf("%w: not a relative path inside the folder", fs.ErrInvalid)
	}
	if !last {
		cut := lastSlash(name)
		if cut < 0 {
			return nil
		}
		name = name[:cut]
	}
	if name == "." {
		return nil
	}
	return f.checkChain(name)
}

// checkEach is checkChain for systems that need one call per folder.
func (f *folder) checkEach(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := f.lstat(name[:i])
		if err != nil {
			return nil // the operation will report it
		}
		if isLink(info) {
			return fmt.Errorf("%w at %q: remove it", ErrLink, name[:i])
		}
	}
	return nil
}

func lastSlash(name string) int {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return i
		}
	}
	return -1
}
