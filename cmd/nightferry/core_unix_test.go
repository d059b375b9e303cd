//go:build unix

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/wire"
)

// TestCore is the life of a Core without sites, by the real program: init,
// check, run, tokens, secrets, reload, publish, stop.
func TestCore(t *testing.T) {
	x := newCoreBox(t)
	x.mode("data", fs.ModeDir|0o700)
	x.mode("data/master.key", 0o600)
	x.mode("data/vault", 0o600)
	x.mode("nightferry-root.key", 0o600)
	for _, gone := range []string{"data/nightferry-release.key", "data/init.unfinished"} {
		if _, err := os.Lstat(filepath.Join(x.dir, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", gone, err)
		}
	}
	// The remedy for a Core that is there works to the letter, whatever store was named.
	for _, args := range [][]string{{"--create-repository"}, {"--store", x.store, "--create-repository"}, {"--store", strings.Replace(x.store, "/fleet", "/other", 1), "--create-repository"}, {}} {
		why := x.fails(4, append([]string{"core", "init", x.dir}, args...)...)
		contains(t, why, "there is a Core in .* already", "remedy: use it: nightferry core check --config "+x.config+"; another Core needs another folder, and another prefix")
	}
	x.must("core", "check", "--config", x.config)
	x.edit("0.0.0.0:4222", "127.0.0.1:0", "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"sites: {}", "sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin}\n  lisbon: {domain: corp, region: emea, zone: Europe/Lisbon}")

	contains(t, x.must("core", "check"), `ok   configuration .*2 sites`, `ok   vault +opens`, `ok   store .*holds the Core`, `ok   source`)
	x.checkExposed()
	lost := strings.Replace(x.store, "s3://", "s3://no-", 1)
	x.edit(x.store, lost)
	out, _, code := x.try("", "core", "check")
	if contains(t, out, `BAD  store .*no such bucket`); code != 3 {
		t.Errorf("a bucket that does not exist: exit code %d", code)
	}
	x.edit(lost, x.store)
	contains(t, x.fails(6, "status"), "not running", "remedy: start it")

	// Secrets, with no daemon: the vault is opened here.
	x.secret = []string{"pass-one-7f3a", "pass-two-7f3a", "typed-by-mistake"}
	contains(t, x.fails(2, "secret", "set", "smtp", "typed-by-mistake"), "never given on the command line")
	x.set("secret", "set", "smtp", "pass-one-7f3a")

	x.start()
	x.mode("data/core.sock", fs.ModeSocket|0o600)
	x.mode("data/state", fs.ModeDir|0o700)
	x.mode("data/ledger.db", 0o600)
	x.running()
	x.reloads()
	x.publishes()
	x.grants()
	x.rotates()
	if out := x.must("gc", x.store); strings.Contains(out, "no Core was asked") {
		t.Error(out)
	}
	x.mayNotAsk()
	log := x.stop()
	contains(t, log, "reload refused", "configuration reloaded", "the Core has stopped")
	if _, err := os.Lstat(filepath.Join(x.dir, "data", "core.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	contains(t, x.must("gc", x.store), "no Core was asked .* it does not run")

	contains(t, x.fails(5, "secret", "rotate", "repository/release", "--file", x.foreign()), "stays as it is")

	before := x.read("data/master.key")
	contains(t, x.must("secret", "rekey"), "new master key")
	if x.read("data/master.key") == before {
		t.Error("rekey left the master key as it was")
	}
	x.start()
	contains(t, x.table("secret", "list"), `smtp +2 +2`)
	x.stop()
	x.noSecrets()
}

// mayNotAsk: the gc of another account, which has the bucket's credential and not
// the Core's socket, says that it did not ask, and does its work. Only root can
// become another account.
func (x *coreBox) mayNotAsk() {
	x.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	exe, err := exec.LookPath("nightferry")
	if err != nil {
		x.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "gc") // where another account may go
	if err != nil {
		x.t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := os.ReadFile(exe)
	if err != nil {
		x.t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	for _, err := range []error{os.WriteFile(filepath.Join(dir, "nightferry"), program, 0o755), os.WriteFile(filepath.Join(dir, "nightferry.yaml"), []byte(x.read("nightferry.yaml")), 0o644),
		os.Chmod(dir, 0o755), os.Mkdir(state, 0o700), os.Chown(state, 65534, 65534)} {
		if err != nil {
			x.t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "nightferry"), "gc", x.store)
	cmd.Dir, cmd.Env = dir, append(x.env, "NIGHTFERRY_STATE="+state, envConfig+"="+filepath.Join(dir, configName))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Errorf("%v\n%s", err, out)
	}
	contains(x.t, string(out), "no Core was asked .* this account may not use its local socket")
}

// checkExposed: a key that others can read is a problem, and no Core starts.
func (x *coreBox) checkExposed() {
	x.t.Helper()
	key := filepath.Join(x.dir, "data", "master.key")
	if err := os.Chmod(key, 0o644); err != nil {
		x.t.Fatal(err)
	}
	out, _, code := x.try("", "core", "check")
	if code != 3 {
		x.t.Errorf("an exposed master key: exit code %d, want 3", code)
	}
	contains(x.t, out, "BAD  master key .*others can read it")
	x.fails(7, "core", "run")
	if err := os.Chmod(key, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// set gives a secret on standard input.
func (x *coreBox) set(args ...string) {
	x.t.Helper()
	last := len(args) - 1
	if out, complaint, code := x.try(args[last]+"\n", args[:last]...); code != 0 {
		x.t.Errorf("%v: exit code %d\n%s%s", args[:last], code, out, complaint)
	}
}

// running is what can be asked of a Core without sites.
func (x *coreBox) running() {
	x.t.Helper()
	t := x.t
	contains(t, x.table("status"), `sites +0 of 2 current, 0 connected, 0 enrolled`, `no channel has a release`)
	contains(t, x.table("sites"), `SITE`, `berlin +corp +emea +package +- +- +never +not enrolled`)
	if s := x.lines("status"); len(s) != 1 || s[0]["event"] != "status" || s[0]["sites"] != 2.0 {
		t.Errorf("status: %v", s)
	}
	for path, want := range map[string]string{"/healthz": `"live":true`, "/readyz": `"ready":true`, "/metrics": `nightferry_sites 2`} {
		if code, body := x.http(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
	}

	token, complaint, _ := x.try("", "site", "token", "berlin")
	parsed, err := wire.ParseToken(strings.TrimSpace(token))
	if err != nil || parsed.Site != "berlin" || parsed.Domain != "corp" {
		t.Fatalf("token: %v, %v", parsed, err)
	}
	contains(t, complaint, "good once, for site berlin")
	x.redirects("site", "token", "lisbon")
	contains(t, x.must("__complete", "sync", "--site", ""), "berlin", "lisbon")
	x.secret = append(x.secret, strings.TrimSpace(token))
	wave := x.must("site", "token", "--wave", "5", "--out", "tokens")
	contains(t, wave, `tokens/berlin.token`, `tokens/lisbon.token`)
	x.mode("tokens/lisbon.token", 0o600)
	contains(t, x.fails(14, "site", "token", "atlantis"), "atlantis")
	x.fails(2, "site", "token")
	issued := func() int { return len(x.lines("audit", "--what", "token")) }
	before := issued()
	contains(t, x.fails(2, "site", "token", "lisbon", "--out", "tokens/lisbon.token"), "is there already", "no token was issued")
	if n := issued(); before == 0 || n != before {
		t.Errorf("%d tokens were issued, %d before", n, before)
	}

	// With the daemon, which refuses to have its vault changed under it.
	contains(t, x.fails(4, "secret", "rekey"), "running")
	x.set("secret", "rotate", "smtp", "pass-two-7f3a")
	x.fails(14, "secret", "rotate", "unheard", "--file", x.config)
	contains(t, x.fails(4, "secret", "set", "bus/operator", "--file", x.config), "makes itself")
	contains(t, x.must("secret", "rotate", "domain/corp/signing"), "version 2")
	contains(t, x.table("secret", "list"), `domain/corp/signing +2 +2`, `smtp +2 +2`)
	contains(t, x.must("audit"), `vault rotate +smtp`, `vault set +smtp`)
	if out := x.must("audit"); strings.Contains(out, "vault get") {
		t.Errorf("reads of the vault hide what people did: %s", out)
	}
	contains(t, x.must("audit", "--reads"), "vault get")
	contains(t, x.table("incidents"), "no incident")
	contains(t, x.table("exceptions"), "no file failed")
	contains(t, x.fails(14, "exceptions", "berlyn"), `did you mean "berlin"`)
	x.narrow()
	x.unknown()
}

// redirects writes a command's output into a file, as a shell does, and checks that others cannot read it.
func (x *coreBox) redirects(args ...string) {
	x.t.Helper()
	out, err := os.OpenFile(filepath.Join(x.dir, "redirected"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		x.t.Fatal(err)
	}
	cmd := exec.Command("nightferry", args...)
	cmd.Dir, cmd.Env, cmd.Stdout = x.dir, x.env, out
	if err := errors.Join(os.Chmod(out.Name(), 0o644), cmd.Run(), out.Close()); err != nil {
		x.t.Fatal(err)
	}
	if x.read("redirected") == "" {
		x.t.Errorf("%v writes nothing", args)
	}
	x.mode("redirected", 0o600)
	if err := os.Remove(out.Name()); err != nil {
		x.t.Fatal(err)
	}
}

// unknown maps an expected error to a command that names a missing thing. The command ends with exit code 14 and one line.
func (x *coreBox) unknown() {
	x.t.Helper()
	for want, args := range map[string][]string{
		`no such order is active`:                         {"resume", "0123abcd"},
		`"nosuch" is neither the id of an order nor`:      {"resume", "nosuch"},
		`no incident 99 is open`:                          {"incidents", "close", "99", "--reason", "x"},
		`no incident 98 is open`:                          {"incidents", "ack", "98", "--note", "x"},
		`the audit has no entry of "fly"(.|\n)*vault set`: {"audit", "--what", "fly"},
		`"atlantis"`: {"sites", "--region", "atlantis"},
		`atlantis`:   {"why", "atlantis"},
	} {
		contains(x.t, x.fails(14, args...), want)
	}
}

// narrow: at 80 columns the last column of a long table moves below its row, and
// nothing of it is lost.
func (x *coreBox) narrow() {
	x.t.Helper()
	reason := strings.Repeat("a long reason that fits no column ", 3)
	x.must("halt", "--site", "berlin", "--reason", reason)
	x.must("resume", "--all")
	wide := x.env
	defer func() { x.env = wide }()
	x.env = append(slices.Clone(wide), "COLUMNS=80")
	audit := x.table("audit", "--what", "halt")
	contains(x.t, audit, `halt +site berlin`)
	if !strings.Contains(strings.Join(strings.Fields(audit), " "), strings.TrimSpace(reason)) {
		x.t.Errorf("the audit lacks the reason:\n%s", audit)
	}
	x.table("core", "tasks")
}

// reloads: a bad file is refused whole, by command and by signal, and what
// runs stays; a good one is put in force.
func (x *coreBox) reloads() {
	x.t.Helper()
	t := x.t
	x.edit("zone: Europe/Lisbon}", "zone: Europe/Lisboa}\n  porto: {domain: corp, region: emea, zone: Europe/Lisbon}", "keep: 10", "keeep: 10")
	why := x.fails(15, "core", "reload")
	contains(t, why, `nightferry.yaml:\d+:\d+: .*keeep`, `nightferry.yaml:\d+:\d+: .*Lisboa`)
	if n := len(x.lines("sites")); n != 2 {
		t.Errorf("a bad file changed the sites to %d", n)
	}
	if err := x.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	x.edit("Europe/Lisboa", "Europe/Lisbon", "keeep", "keep")
	contains(t, x.must("core", "reload"), "3 sites")
	if n := len(x.lines("sites")); n != 3 {
		t.Errorf("a good file left %d sites", n)
	}
	x.edit("metrics: 127.0.0.1:0", "metrics: 127.0.0.1:1")
	contains(t, x.fails(4, "core", "reload"), "cannot change listen")
	x.edit("metrics: 127.0.0.1:1", "metrics: 127.0.0.1:0")
}

func (x *coreBox) read(name string) string {
	x.t.Helper()
	b, err := os.ReadFile(filepath.Join(x.dir, name))
	if err != nil {
		x.t.Fatal(err)
	}
	return string(b)
}

// noSecrets looks for what was given and issued in everything that was written
// but where it belongs.
func (x *coreBox) noSecrets() {
	x.t.Helper()
	files := 0
	err := filepath.WalkDir(x.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".token") {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, s := range x.secret {
			if bytes.Contains(b, []byte(s)) {
				x.t.Errorf("%s holds a secret", path)
			}
		}
		return err
	})
	if err != nil || files < 8 {
		x.t.Errorf("%d files: %v", files, err)
	}
	for _, s := range x.secret {
		if strings.Contains(x.log.String(), s) {
			x.t.Error("the log holds a secret")
		}
	}
}
