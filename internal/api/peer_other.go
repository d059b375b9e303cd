//go:build unix && !linux

package api

import (
	"errors"
	"net"
	"os"
	"os/user"
)

// peerAccount relies on the socket's mode: these systems have other ways to ask, and
// none of them is worth its own code for a place where Cores seldom run.
func peerAccount(_ net.Conn, allowed func(uid uint32) bool) (Caller, error) {
	if !allowed(uint32(os.Geteuid())) {
		return Caller{}, errors.New("on this system, only the account of the Core may use its socket")
	}
	u, err := user.Current()
	if err != nil {
		return Caller{User: "unknown"}, nil
	}
	return Caller{User: u.Username}, nil
}
