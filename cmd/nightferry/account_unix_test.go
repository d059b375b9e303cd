//go:build unix

package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRootAsksServiceCore: the Core runs as an account of its own, which owns its data folder, while its configuration is
// root's, as docs/operations.md has it. Root uses the kill switch, looks and checks; each file there stays the account's.
func TestRootAsksServiceCore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can become another account: nothing is tried")
		return
	}
	const service = 54321
	x := newCoreBox(t)
	x.edit("0.0.0.0:4222", "127.0.0.1:0", "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"sites: {}", "sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin}")
	path, err := exec.LookPath("nightferry")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	x.exe, x.as = filepath.Join(x.dir, "nightferry"), &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: service, Gid: service}}
	data, logs := filepath.Join(x.dir, "data"), filepath.Join(x.dir, "logs")
	each := func(do func(path string) error) {
		t.Helper()
		for _, dir := range []string{data, logs} {
			if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return do(path)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{os.WriteFile(x.exe, program, 0o755), os.Chmod(x.dir, 0o755), os.MkdirAll(logs, 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	each(func(path string) error { return os.Lchown(path, service, service) })
	contains(t, x.must("core", "check"), `ok   vault +opens`)
	x.start()
	contains(t, x.must("status"), `sites +0 of 1 current`)
	x.must("halt", "--site", "berlin", "--reason", "a drill")
	contains(t, x.must("halt", "status"), `a drill`)
	x.must("resume", "--site", "berlin")
	x.set("secret", "set", "smtp", "from-root")
	contains(t, x.must("core", "check"), `unproven: the running Core has it open`)
	x.stop()
	each(func(path string) error {
		info, err := os.Lstat(path)
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != service {
			t.Errorf("%s is not the account's", path)
		}
		return err
	})
}
