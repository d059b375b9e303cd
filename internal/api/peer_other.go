//go:build unix && !linux

package api

import (
	"net"
	"os/user"
)

// peerAccount relies on the socket's mode: these systems have other ways to ask, and
// none of them is worth its own code for a place where Cores seldom run.
func peerAccount(net.Conn) (Caller, error) {
	u, err := user.Current()
	if err != nil {
		return Caller{User: "unknown"}, nil
	}
	return Caller{User: u.Username}, nil
}
