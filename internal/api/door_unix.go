//go:build unix

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"nightferry/internal/durable"
)

// SocketName is the socket's name in the data folder.
const SocketName = "core.sock"

// maxSocketPath is what the smallest system takes; Linux takes 107 bytes.
const maxSocketPath = 103

// Listen opens the door in a Core's data folder. Only one Core may have it:
// for a second one the error is durable.ErrBusy. What a killed Core left is
// replaced. Closing the listener removes the socket.
func Listen(dir string) (net.Listener, error) {
	path, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	if c, err := d.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %q: another Core answers there: %w", path, durable.ErrBusy)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("keep others from the socket: %w", err), l.Close())
	}
	return l, nil
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	path, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	c, err := dialTrusted(ctx, dir, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrDown
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, &Error{Code: "denied", Message: fmt.Sprintf("this account may not use the socket %q", path), Fix: "use the account that the Core runs as, or root"}
	}
	return c, err
}

// dialTrusted connects only to a server that a trusted account runs, in a
// folder that no other account can change: what is sent may be a secret or a
// halt order. Root also connects to the Core of a service account: the folder
// and the server must belong to that one account.
func dialTrusted(ctx context.Context, dir, path string) (net.Conn, error) {
	owner, err := durable.OwnerOf(dir)
	if err != nil {
		return nil, err
	}
	allowed := allowsPeer
	if !allowsPeer(owner) {
		allowed = func(uid uint32) bool { return uid == owner }
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if _, err := peerAccount(c, allowed); err != nil {
		return nil, errors.Join(&Error{Code: "denied", Message: fmt.Sprintf("the server of the socket %q is not trusted: %v", path, err), Fix: "use the account that the Core runs as, and look at who made that socket"}, c.Close())
	}
	return c, nil
}

// allowsPeer accepts root and this process's own account.
func allowsPeer(uid uint32) bool { return isAllowed(uid, os.Geteuid()) }

func isAllowed(uid uint32, own int) bool { return uid == 0 || int64(uid) == int64(own) }

func socketPath(dir string) (string, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("local socket %q: its path has %d bytes, the system takes %d: choose a data folder with a shorter path", path, len(path), maxSocketPath)
	}
	return path, nil
}
