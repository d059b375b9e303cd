package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"nightferry/internal/durable"
)

// pipeFile holds the pipe's name. All pipes of a machine lie in one folder in
// which anybody may make one: a name that cannot be guessed, kept where only
// the owner and the administrators read it, cannot be taken beforehand.
const pipeFile = "core.pipe"

// Listen opens the door in a Core's data folder. Only one Core may have it:
// for a second one the error is durable.ErrBusy. Closing the listener ends the
// pipe.
func Listen(dir string) (net.Listener, error) {
	if c, err := dial(context.Background(), dir); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen in %q: another Core answers there: %w", dir, durable.ErrBusy)
	}
	own, err := ownSID()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 16)
	rand.Read(random) // never fails (crypto/rand)
	name := `\\.\pipe\nightferry-` + hex.EncodeToString(random)
	l, err := winio.ListenPipe(name, &winio.PipeConfig{
		// Protected: SYSTEM, the administrators and this account; nobody else, and nobody over the network.
		SecurityDescriptor: "O:" + own + "D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + own + ")",
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the local pipe: %w", err)
	}
	path := filepath.Join(dir, pipeFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("remove the old pipe's name: %w", err), l.Close())
	}
	if err := durable.WritePrivate(path, []byte(name)); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the pipe's name: %w", err), l.Close())
	}
	return l, nil
}

func ownSID() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("find this account: %w", err)
	}
	return u.User.Sid.String(), nil
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	path := filepath.Join(dir, pipeFile)
	name, owner, err := durable.ReadOwned(path, 256)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrDown
	case errors.Is(err, fs.ErrPermission):
		return nil, &Error{Code: "denied", Message: fmt.Sprintf("this account may not read %q", path), Fix: "use the account that the Core runs as, or an administrator's elevated prompt"}
	case err != nil:
		return nil, err
	}
	if !regexp.MustCompile(`^\\\\\.\\pipe\\nightferry-[0-9a-f]{32}$`).Match(name) {
		return nil, fmt.Errorf("%q names no pipe of ours: remove it and restart the Core", path)
	}
	c, err := winio.DialPipeContext(ctx, string(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrDown
	}
	if err != nil {
		return nil, err
	}
	if err := servedBy(c, owner); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// servedBy refuses a pipe that another account than the data folder's serves.
func servedBy(c net.Conn, owner *windows.SID) error {
	f, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return fmt.Errorf("owner of a %T: want a named pipe", c)
	}
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("owner of the local pipe: %w", err)
	}
	server, _, err := sd.Owner()
	if err != nil || server == nil {
		return errors.Join(errors.New("the local pipe has no owner"), err)
	}
	if !server.Equals(owner) && !durable.Trusts(server) {
		return &Error{Code: "denied", Message: "the local pipe is served by another account than the Core's data folder belongs to: " + server.String(), Fix: "stop that process, and restart the Core"}
	}
	return nil
}

func allowsPeer(uint32) bool { return true }

// peerAccount says who is at the other end. The pipe's access list has let them in.
func peerAccount(c net.Conn, _ func(uint32) bool) (Caller, error) {
	f, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return Caller{User: "unknown"}, nil
	}
	var pid uint32
	if err := windows.GetNamedPipeClientProcessId(windows.Handle(f.Fd()), &pid); err != nil {
		return Caller{User: "unknown"}, nil
	}
	return Caller{User: userOf(pid), PID: int(pid)}, nil
}

// userOf names the account of a process, as far as it can be told.
func userOf(pid uint32) string {
	p, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = windows.CloseHandle(p) }()
	var t windows.Token
	if err := windows.OpenProcessToken(p, windows.TOKEN_QUERY, &t); err != nil {
		return "unknown"
	}
	defer func() { _ = t.Close() }()
	u, err := t.GetTokenUser()
	if err != nil {
		return "unknown"
	}
	if name, domain, _, err := u.User.Sid.LookupAccount(""); err == nil {
		return domain + `\` + name
	}
	return u.User.Sid.String()
}
