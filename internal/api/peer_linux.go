package api

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peerAccount returns the account at the other end, of a client or of the server, and
// refuses an account that is not allowed.
func peerAccount(c net.Conn, allowed func(uid uint32) bool) (Caller, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("peer of a %T: want a Unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, sockErr); err != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", err)
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if !allowed(cred.Uid) {
		return Caller{}, fmt.Errorf("uid %s may not use this socket", uid)
	}
	caller := Caller{User: accountName(uid), PID: int(cred.Pid)}
	if cred.Uid == 0 {
		if login := loginOf(proc, caller.PID); login != "" && login != uid {
			caller.User = accountName(login) + " as " + caller.User
		}
	}
	return caller, nil
}

func accountName(uid string) string {
	if known, err := user.LookupId(uid); err == nil {
		return known.Username
	}
	return "uid " + uid
}

const proc = "/proc"

// loginOf returns the account that signed in and then became root, or nothing if the system does
// not know it. The kernel keeps it over sudo and su; systems without it leave what sudo wrote.
func loginOf(proc string, pid int) string {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if b, err := os.ReadFile(filepath.Join(dir, "loginuid")); err == nil {
		if uid := strings.TrimSpace(string(b)); isUID(uid) {
			return uid
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err != nil {
		return ""
	}
	for pair := range strings.SplitSeq(string(b), "\x00") {
		if uid, ok := strings.CutPrefix(pair, "SUDO_UID="); ok && isUID(uid) {
			return uid
		}
	}
	return ""
}

// isUID reports whether text is an account's number; the highest one means none.
func isUID(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && n != math.MaxUint32
}
