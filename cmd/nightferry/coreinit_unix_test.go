//go:build unix

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/s3test"
)

// TestCoreInit is what core init meets: no store yet, a repository of others,
// one that it died on, and one to adopt.
func TestCoreInit(t *testing.T) {
	b := s3test.S3(t)
	base := t.TempDir()
	x := &coreBox{t: t, dir: base, env: append(append(os.Environ(), b.Env()...), "NIGHTFERRY_STATE="+filepath.Join(base, "state"))}
	at := func(name string) string { return filepath.Join(base, name) }

	// Without a store there is a configuration to fill in, and then the rest.
	contains(t, x.must("core", "init", at("a"), "--host", "localhost"), `name the store in it`)
	x.config = filepath.Join(at("a"), "nightferry.yaml")
	if b, err := os.ReadFile(x.config); err != nil || !strings.Contains(string(b), "package: '/srv/depot/package'") {
		t.Errorf("the configuration names no target of this system: %v", err)
	}
	x.edit("s3://my-bucket/nightferry?region=eu-central-1", b.URL("a"))
	contains(t, x.fails(4, "core", "init", at("a"), "--store", b.URL("elsewhere"), "--create-repository"), "another store")
	x.must("core", "init", at("a"), "--create-repository", "--encrypt")
	contains(t, x.must("core", "check", "--config", x.config), `ok   vault`)

	// A bucket that does not exist is no store.
	whole, err := os.ReadFile(x.config)
	if err != nil {
		t.Fatal(err)
	}
	bucketless := strings.Replace(string(whole), "s3://"+b.Name, "s3://no-such-bucket", 1)
	if err := os.WriteFile(x.config, []byte(bucketless), 0o600); err != nil || bucketless == string(whole) {
		t.Fatal(err, "the store is not in the configuration")
	}
	if out, _, code := x.try("", "core", "check", "--config", x.config); code != 3 || !strings.Contains(out, "BAD  store") {
		t.Errorf("a missing bucket: exit code %d, %s", code, out)
	}
	if err := os.WriteFile(x.config, whole, 0o600); err != nil {
		t.Fatal(err)
	}

	// The readers of logs that the starter suggests are no group of this system.
	x.edit("corp: {}", "corp:", "  #  log_readers:", "    log_readers:")
	out, _, code := x.try("", "core", "check", "--config", x.config)
	contains(t, out, `BAD  log readers +group "corp-depot-admins": .*create it, or name another`)
	if code != 3 {
		t.Errorf("a group that does not exist: exit code %d, want 3", code)
	}
	x.edit("corp:", "corp: {}", "    log_readers:", "  #  log_readers:")

	// Somebody else's repository is not taken over.
	contains(t, x.fails(9, "core", "init", at("b"), "--host", "localhost", "--store", b.URL("a"), "--create-repository"), "take this repository over: --release-key FILE")
	for _, left := range []string{"nightferry-root.key", "nightferry-root.pub", "data/nightferry-release.key"} {
		if _, err := os.Lstat(filepath.Join(at("b"), left)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a repository of others leaves %s here: %v", left, err)
		}
	}
	// Keys that were there before the command stay, also the public half of a root key that was taken away.
	for left, exit := range map[string]int{"data/nightferry-repository.key": 9, "nightferry-root.pub": 4, "data/nightferry-release.pub": 4} {
		folder := filepath.Join(at("h"), strings.ReplaceAll(left, "/", "-"))
		path := filepath.Join(folder, left)
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
			t.Fatal(err)
		}
		x.fails(exit, "core", "init", folder, "--host", "localhost", "--store", b.URL("a"), "--create-repository")
		if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
			t.Errorf("%s is %q: %v", left, text, err)
		}
	}
	contains(t, x.fails(2, "core", "init", at("f"), "--store", "file:///srv/store"), "a Core needs an S3 store")
	contains(t, x.fails(2, "core", "init", at("f"), "--host", "https://core.example.com:4222"), "without a scheme and without a port")
	if _, err := os.Lstat(at("f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused host leaves a folder: %v", err)
	}
	x.fails(7, "core", "init", at("c"), "--host", "localhost", "--store", b.URL("a"), "--release-key", at("none"))

	// A failed init leaves nothing that stops the corrected command, also if the name of the store was wrong.
	bad := strings.Replace(b.URL("g"), "s3://"+b.Name, "s3://no-such-bucket", 1)
	x.fails(14, "core", "init", at("g"), "--host", "localhst", "--store", bad, "--create-repository")
	x.must("core", "init", at("g"), "--host", "localhost", "--store", b.URL("g"), "--create-repository")
	if c, err := os.ReadFile(filepath.Join(at("g"), "nightferry.yaml")); err != nil || strings.Contains(string(c), "no-such-bucket") || strings.Contains(string(c), "localhst") || !strings.Contains(string(c), "localhost") {
		t.Errorf("%v:\n%s", err, c)
	}

	// One that exists is adopted, with its keys; a wrong one is refused before a vault exists.
	x.must("init", "--keys", at("keys"), b.URL("old"))
	x.must("init", "--keys", at("other"), b.URL("other"))
	x.fails(5, "core", "init", at("d"), "--host", "localhost", "--store", b.URL("old"), "--release-key", at("other/nightferry-release.key"))
	x.fails(5, "core", "init", at("d"), "--host", "localhost", "--store", b.URL("old"), "--release-key", at("keys/nightferry-release.key"), "--trust", at("other/nightferry-root.pub"))
	x.must("core", "init", at("d"), "--host", "localhost", "--store", b.URL("old"), "--release-key", at("keys/nightferry-release.key"), "--trust", at("keys/nightferry-root.pub"))
	if _, err := os.Stat(at("keys/nightferry-release.key")); err != nil {
		t.Errorf("the key that was brought is gone: %v", err)
	}

	// An init that died with half a vault is completed; a whole one is never touched.
	data := filepath.Join(at("e"), "data")
	contains(t, x.fails(7, "core", "init", at("e"), "--host", "localhost", "--store", b.URL("e")), "remedy: make a repository with --create-repository")
	for name, text := range map[string]string{"vault": "half", "init.unfinished": ""} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(at("e"), "nightferry.yaml")
	contains(t, x.fails(4, "core", "run", "--config", half), "is not complete", "nightferry core init again")
	out, _, code = x.try("", "core", "check", "--config", half)
	contains(t, out, "is not complete")
	if code != 3 {
		t.Errorf("exit code %d: %s", code, out)
	}
	x.must("core", "init", at("e"), "--create-repository")
	if half, err := os.ReadFile(filepath.Join(data, "vault.unfinished")); err != nil || string(half) != "half" {
		t.Errorf("the vault that was there: %q, %v", half, err)
	}
	for _, gone := range []string{"init.unfinished", "nightferry-release.key", "nightferry-release.pub"} {
		if _, err := os.Lstat(filepath.Join(data, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	vault, err := os.ReadFile(filepath.Join(data, "vault"))
	if err != nil || len(vault) < 100 {
		t.Fatalf("the vault has %d bytes: %v", len(vault), err)
	}
	contains(t, x.fails(4, "core", "init", at("e"), "--create-repository"), "already")
	if again, err := os.ReadFile(filepath.Join(data, "vault")); err != nil || !bytes.Equal(vault, again) {
		t.Errorf("a second init changed the vault: %v", err)
	}
}
