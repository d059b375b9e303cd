//go:build !windows

package service

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// systemd itself checks the unit, if it is installed.
func TestUnit(t *testing.T) {
	dir := t.TempDir()
	exe := filepath.Join(dir, `a 50% ferry`)
	if err := os.WriteFile(exe, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := Config{Name: "ferry-test", Display: "nightferry Core", Description: "100% of it", Args: []string{"core", "run", `C:\x "y" $PATH %n`}, User: "root", Reload: true, LowPorts: true,
		Writable: []string{"/srv/50% of it", "/var/lib/$x"}}
	if err := write(dir, c, exe); err != nil {
		t.Fatal(err)
	}
	if err := write(dir, c, exe); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v, want ErrExists", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "ferry-test.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`ExecStart="` + strings.NewReplacer(`"`, `\"`, `%`, `%%`).Replace(exe) + `" "core" "run" "C:\\x \"y\" $$PATH %%n"` + "\n",
		"Description=nightferry Core: 100%% of it\n", "User=root\n", "ExecReload=/bin/kill -HUP $MAINPID\n", "WantedBy=multi-user.target\n",
		"NoNewPrivileges=yes\n", "ProtectSystem=strict\n", `ReadWritePaths="-/srv/50%% of it"` + "\n", `ReadWritePaths="-/var/lib/$x"` + "\n", "PrivateTmp=yes\n",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n", "SystemCallFilter=@system-service\n", "RestrictNamespaces=yes\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is not in:\n%s", want, b)
		}
	}
	c.Writable = nil // the targets of an agent may be anywhere
	if text := unit(&c, exe); strings.Contains(text, "ProtectSystem") || !strings.Contains(text, "SystemCallFilter=") {
		t.Errorf("without folders:\n%s", text)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here: the text alone was compared")
		return
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", filepath.Join(dir, "ferry-test.service")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNamesAreChecked(t *testing.T) {
	for _, c := range []Config{{Name: ""}, {Name: "../x"}, {Name: "a b"}, {Name: "a", Args: []string{"x\nExecStartPre=/bin/evil"}}, {Name: "a", User: "root\n"}} {
		if err := Install(t.Context(), c); err == nil {
			t.Errorf("%+v was installed", c)
		}
	}
	if err := Uninstall(t.Context(), "nightferry-that-is-not-there"); !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want ErrAbsent", err)
	}
}
