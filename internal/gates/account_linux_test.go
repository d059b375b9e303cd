package gates

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Accounts and groups that exist only in these processes.
const (
	coreID       = 65501
	strangerID   = 65502
	alphaReaders = "65601"
	betaReaders  = "65602"
	alphaGroup   = 65601
	betaGroup    = 65602
)

// account is the user and groups that a process runs as.
type account struct {
	uid    uint32
	groups []uint32
}

// coreAccount returns the Core's account. Only root can choose one: for other users it returns nil.
func coreAccount() *account {
	if os.Geteuid() != 0 {
		return nil
	}
	return &account{coreID, []uint32{alphaGroup, betaGroup}}
}

func (a *account) run(cmd *exec.Cmd) {
	if a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.uid, Groups: a.groups}}
	}
}

// own gives dir and everything in it to the account.
func (a *account) own(t *testing.T, dir string) {
	t.Helper()
	if a == nil {
		return
	}
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.uid))
	}); err != nil {
		t.Fatal(err)
	}
}

// groupOf returns the group of a file.
func groupOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Gid }
