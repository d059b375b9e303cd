package api

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAllowedAccounts(t *testing.T) {
	for _, c := range []struct {
		uid  uint32
		own  int
		want bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {65534, 0, false}} {
		if got := isAllowed(c.uid, c.own); got != c.want {
			t.Errorf("uid %d at a Core of %d: %v", c.uid, c.own, got)
		}
	}
}

// TestAnotherAccountIsRefused opens the socket's mode on purpose: the system's
// word about the peer must refuse what the mode would let in. Only root can
// become another account; others test the rule alone, above.
func TestAnotherAccountIsRefused(t *testing.T) {
	if dir := os.Getenv("NIGHTFERRY_TEST_DIAL"); dir != "" {
		// Also who sends much, which nobody wants to read, hears that it is refused, and not that the connection broke.
		for _, in := range []any{nil, question{}, question{strings.Repeat("x", 200_000)}, question{strings.Repeat("x", MaxBody-100)}, question{strings.Repeat("x", 2*MaxBody)}} {
			for range 20 {
				err := NewClient(ClientOptions{Dir: dir}).Call(t.Context(), http.MethodPost, "/v1/x", nil, in, nil)
				var told *Error
				if !errors.As(err, &told) || told.Code != "denied" {
					t.Fatalf("another account: %v, want denied", err)
				}
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Log("not root: the rule is tested, not the refusal of a real process")
		return
	}
	dir, err := os.MkdirTemp("/tmp", "door")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	serve(t, dir, ServerOptions{Now: time.Now})
	binary := filepath.Join(dir, "peer.test")
	exe, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, SocketName), 0o666), os.WriteFile(binary, exe, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestAnotherAccountIsRefused$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "NIGHTFERRY_TEST_DIAL="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRootIsNamedByItsLogin checks that the audit names who signed in, and not only root.
func TestRootIsNamedByItsLogin(t *testing.T) {
	dir := t.TempDir()
	for pid, files := range map[string]map[string]string{
		"1": {"loginuid": "1000", "environ": ""},
		"2": {"loginuid": "4294967295", "environ": "A=b\x00SUDO_UID=1001\x00"},
		"3": {"environ": "SUDO_UID=1001"},
		"4": {"loginuid": "4294967295", "environ": "XSUDO_UID=1\x00SUDO_UID=x\nadmin\x00"},
	} {
		if err := os.Mkdir(filepath.Join(dir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, pid, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for pid, want := range map[int]string{1: "1000", 2: "1001", 3: "1001", 4: "", 5: ""} {
		if got := loginOf(dir, pid); got != want {
			t.Errorf("process %d: login %q, want %q", pid, got, want)
		}
	}
}
