package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/wire"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	secret := "nf1.c2VjcmV0c2VjcmV0c2VjcmV0"
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no such verb", []string{"sing"}, exitUsage, "unknown command"},
		{"no token", []string{"enroll", "--allow", dir}, exitUsage, "token-file"},
		{"two tokens", []string{"enroll", secret, "--token-file", file, "--allow", dir}, exitUsage, "token-file"},
		{"half a token", []string{"enroll", secret, "--allow", dir}, exitUsage, "not a whole token"},
		{"half a token in a file", []string{"enroll", "--token-file", file, "--allow", dir}, exitUsage, "not a whole token"},
		{"no token file", []string{"enroll", "--token-file", filepath.Join(dir, "none"), "--allow", dir}, 14, "read the token"},
		{"no folder", []string{"enroll", "--token-file", filepath.Join(dir, "none")}, exitUsage, "--allow DIR"},
		{"no folder for a service", []string{"install", secret}, exitUsage, "--allow DIR"},
		{"run without identity", []string{"run"}, 14, "not enrolled"},
		{"status without identity", []string{"status"}, 14, "not enrolled"},
		{"install without identity", []string{"install"}, 14, "not enrolled"},
		{"check without identity", []string{"check"}, 3, "not as it should be"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append(c.args, "--state", filepath.Join(dir, "state")), strings.NewReader(""), &out, &errs)
		if code != 3 && !strings.Contains(errs.String(), "\nremedy: ") {
			t.Errorf("%s: no remedy: %s", c.name, errs.String())
		}
		if code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: code %d, want %d: %s", c.name, code, c.code, errs.String())
		}
		if strings.Contains(out.String()+errs.String(), "c2VjcmV0") {
			t.Errorf("%s: the token is shown: %s", c.name, errs.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("a token that is none has made a state directory")
	}
}

// TestCoreThatDoesNotAnswer checks that scripts can distinguish a Core that does not answer, so that they retry, from
// one that refuses.
func TestCoreThatDoesNotAnswer(t *testing.T) {
	token, err := (&wire.Token{Core: []string{"tls://127.0.0.1:1"}, Domain: "corp", Site: "berlin", ID: "tok1", Seed: make([]byte, 32), JWT: "jwt"}).Text()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"enroll", token, "--allow", t.TempDir(), "--state", filepath.Join(t.TempDir(), "state")}, nil, &out, &errs)
	if code != 6 || !strings.Contains(errs.String(), "tls://127.0.0.1:1: dial tcp 127.0.0.1:1: connect") {
		t.Errorf("code %d, want 6: %s", code, errs.String())
	}
}

func TestJSON(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"version", "--json"}, nil, &out, &errs); code != 0 {
		t.Fatal(code, errs.String())
	}
	if code := run(t.Context(), []string{"status", "--json", "--state", t.TempDir()}, nil, &out, &errs); code != 14 {
		t.Errorf("code %d", code)
	}
	for line := range strings.Lines(out.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["event"] == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestExitCodesAreUnique(t *testing.T) {
	last := -1
	for _, x := range exitTable() {
		if x.code <= last || !strings.Contains(strings.Join(strings.Fields(exitHelp()), " "), x.means) {
			t.Errorf("exit code %d after %d", x.code, last)
		}
		last = x.code
	}
}

// TestCheckNamesItsAccount: the check says for which account it holds, warns root,
// and fits a terminal.
func TestCheckNamesItsAccount(t *testing.T) {
	var out, errs bytes.Buffer
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name/", 8))
	if code := run(t.Context(), []string{"check", "--state", dir}, strings.NewReader(""), &out, &errs); code != 3 {
		t.Errorf("code %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if !strings.HasPrefix(lines[0], "as    ") || os.Geteuid() == 0 != strings.Contains(out.String(), "sudo -u ACCOUNT") {
		t.Errorf("the account is missing:\n%s", out.String())
	}
	for _, l := range lines {
		if len(l) > 80 && strings.Count(strings.TrimSpace(l), " ") > 1 { // a path alone cannot be broken
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	out.Reset()
	run(t.Context(), []string{"check", "--json", "--state", dir}, strings.NewReader(""), &out, &errs)
	var first struct {
		Event, Name string
		Root        bool
	}
	if err := json.NewDecoder(&out).Decode(&first); err != nil || first.Event != "account" || first.Name == "" || first.Root != (os.Geteuid() == 0) {
		t.Errorf("%+v, %v", first, err)
	}
}
