package api

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"

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
	caller := Caller{User: "uid " + uid, PID: int(cred.Pid)}
	if known, err := user.LookupId(uid); err == nil {
		caller.User = known.Username
	}
	return caller, nil
}
