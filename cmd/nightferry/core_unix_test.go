//go:build unix

package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightferry/internal/s3test"
	"nightferry/internal/trust"
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

// publishes is the content's way to where it is shown.
func (x *coreBox) publishes() {
	x.t.Helper()
	t := x.t
	source := filepath.Join(x.dir, "content", "package")
	for name, text := range map[string]string{"foo.msi": "one", "sub/bar.msi": "two"} {
		path := filepath.Join(source, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	contains(t, x.table("publish", "package", "--dry-run"), `would be published`)
	contains(t, x.table("publish", "package"), `package: release 1 published: 2 files, 1 folder, 6 B`, `3 added`)
	contains(t, x.table("publish", "package"), `release 1 is unchanged`)
	// Names that a guard refuses are told, with what this Core can do about them, and on lines of their own.
	for _, name := range []string{"aux.txt", "Foo.msi"} {
		if err := os.WriteFile(filepath.Join(source, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	why := x.fails(4, "publish", "package")
	contains(t, why, `\n  name "aux.txt"`, `(?i)\n  name "foo.msi"`, `set channels.package.unportable_names: allow`)
	if strings.Contains(why, "--allow-unportable") {
		t.Error(why)
	}
	for _, list := range []string{x.must("run", "show", x.lines("runs", "--core", "--state", "refused")[0]["id"].(string)), x.must("incidents")} {
		if contains(t, list, `nothing\s+was\s+published;\s+name\s+"aux.txt"`); strings.Contains(list, `\n`) {
			t.Error(list)
		}
	}
	for _, name := range []string{"aux.txt", "Foo.msi"} {
		if err := os.Remove(filepath.Join(source, name)); err != nil {
			t.Fatal(err)
		}
	}
	// All that are configured; one that cannot be published keeps no other back.
	x.edit("channels:\n", "channels:\n  absent: {source: "+filepath.Join(x.dir, "content", "absent")+"}\n")
	x.must("core", "reload")
	out, why, code := x.try("", "publish")
	if contains(t, out, `package: release 1 is unchanged`); code == 0 {
		t.Error("a channel without a source was published")
	}
	contains(t, why, `channel absent: .*content/absent`)
	x.edit("  absent: {source: "+filepath.Join(x.dir, "content", "absent")+"}\n", "")
	x.must("core", "reload")
	contains(t, x.must("publish"), `package: release 1 is unchanged`)
	contains(t, x.table("status"), `package +1 +2`)
	x.table("incidents")
	contains(t, x.table("sites"), `berlin +corp +emea +package +- +1`)
	contains(t, x.table("where", "package/foo.msi"), `berlin +- +nothing yet`)
	runs := x.lines("runs", "--core", "--channel", "package")
	if len(runs) == 0 {
		t.Fatal("no run of the publish")
	}
	x.table("runs")
	id := runs[len(runs)-1]["id"].(string)
	for _, r := range runs {
		if r["dry_run"] == nil && r["release"] == 1.0 && r["totals"].(map[string]any)["added"] == 2.0 {
			id = r["id"].(string)
		}
	}
	contains(t, x.must("run", "show", id[:16]), `added +3 B +foo.msi`, `added +3 B +sub/bar.msi`)
	if n := len(x.lines("run", "show", id, "--all-files")); n < 3 {
		t.Errorf("run show --all-files: %d lines", n)
	}
	contains(t, x.fails(14, "run", "show", strings.Repeat("f", 32)), "not")
	for _, no := range []string{"zzzz", "", strings.Repeat("f", 33)} {
		contains(t, x.fails(14, "run", "show", no), "hexadecimal digits", "remedy: nightferry runs lists the runs")
	}
	contains(t, x.fails(14, "publish", "pakage"), `did you mean "package"`)
	x.fails(14, "sync", "--region", "apac")
	x.fails(14, "sync", "--all", "--channel", "pakage")
	x.fails(14, "sites", "--site", "atlantis")
	x.fails(14, "where", "pakage/foo.msi")
	contains(t, x.fails(14, "where", "package/sub"), `"sub" is a folder of "package": name a file in it`)
	contains(t, x.fails(14, "where", "package/fo.msi"), `no file of channel package is named "fo.msi": did you mean "foo.msi"\?`)
	contains(t, x.fails(14, "where", "package/bar.msi"), `did you mean "sub/bar.msi"\?`)
	for _, verb := range []string{"runs", "logs"} {
		contains(t, x.fails(14, verb, "--site", "berlyn"), `did you mean "berlin"`)
		x.fails(14, verb, "--channel", "pakage")
		contains(t, x.fails(2, verb, "--since", "foo"), "remedy: see nightferry "+verb+" --help")
	}
	contains(t, x.must("runs", "--site", "berlin"), "no such run")
	contains(t, x.fails(2, "runs", "--state", "bogus"), "want one of verified")
	x.must("runs", "--state", "incomplete")
	x.fails(14, "logs", "--run", "zzzz")
	x.fails(14, "logs", "--run", strings.Repeat("f", 12))
	contains(t, x.fails(2, "plan", "--days", "0"), "remedy: see nightferry plan --help")
	var logs []string
	for began := time.Now(); len(logs) < len(runs); { // a log file is written a moment after its run's end
		if logs = strings.Fields(x.must("logs", "--core", "--paths")); time.Since(began) > time.Minute {
			t.Fatalf("%d log files of %d runs\n%s", len(logs), len(runs), x.log)
		}
	}
	last := strings.TrimSuffix(filepath.Base(logs[0]), ".jsonl")
	if one := x.must("logs", "--run", last[:12], "--paths"); strings.TrimSpace(one) != logs[0] {
		t.Errorf("logs --run %s: %q, want %q", last[:12], one, logs[0])
	}
	contains(t, x.must("logs", "--run", last[:12]), `\(Core\) +\w+ +`+last[:8])
	for _, l := range logs {
		if _, err := os.Stat(l); err != nil {
			t.Error(err)
		}
	}
	for began := time.Now(); !strings.Contains(x.must("status"), "same"); { // the source is measured after the publish
		if time.Since(began) > time.Minute {
			t.Fatalf("release 1 is not measured\n%s", x.log)
		}
	}
	contains(t, x.table("status"), `package +1 +2 +6 B +\S+ +\S+ +same`)
	contains(t, x.table("runs", "--core"), `\(Core\) +package +1 +measured: same`)
	if m := x.lines("status")[0]["measured"].([]any); len(m) != 1 || m[0].(map[string]any)["same"] != 3.0 {
		t.Errorf("status --json: %v", m)
	}
	n := x.lines("sync", "--all", "--dry-run")
	if len(n) < 2 || n[0]["event"] != "job" || n[1]["event"] != "order" {
		t.Fatalf("sync: %v", n)
	}
	job, _ := n[0]["id"].(string)
	if j := x.lines("job", "show", job); len(j) != 1 || j[0]["state"] != "done" || j[0]["kind"] != "sync" {
		t.Errorf("job show: %v", j)
	}
	if list := x.lines("job", "list", "--limit", "2"); len(list) != 2 || list[0]["id"] != job || list[1]["state"] != "failed" {
		t.Errorf("job list: %v", list)
	}
	x.fails(14, "job", "stop", "ff")
	if j := x.lines("job", "stop", job); len(j) != 1 || j[0]["state"] != "done" {
		t.Errorf("job stop: %v", j)
	}
	x.fails(2, "sync")
}

// foreign is a release key that nobody vouches for.
func (x *coreBox) foreign() string {
	x.t.Helper()
	file := filepath.Join(x.t.TempDir(), "foreign.key")
	if err := os.WriteFile(file, trust.EncodeSecret("release", ed25519.NewKeyFromSeed(make([]byte, 32))), 0o600); err != nil {
		x.t.Fatal(err)
	}
	return file
}

// rotates replaces the release key in the three steps of the help; at no time
// does the Core sign with a key that sites refuse.
func (x *coreBox) rotates() {
	x.t.Helper()
	t := x.t
	contains(t, x.fails(5, "secret", "rotate", "repository/release", "--file", x.foreign()), "stays as it is")
	rotate := []string{"trust", "rotate", x.store, "--root-key", filepath.Join(x.dir, "nightferry-root.key")}
	old := regexp.MustCompile(`(?m)^ +([0-9a-f]{64})$`).FindStringSubmatch(x.must("trust", "show", x.store))
	if old == nil {
		t.Fatal("trust show lists no key")
	}
	x.must(append(rotate, "--keep-old", "--keys", filepath.Join(x.dir, "new"))...)
	keys, err := filepath.Glob(filepath.Join(x.dir, "new", "*.key"))
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	contains(t, x.must("secret", "rotate", "repository/release", "--file", keys[0]), "version 2 stored")
	contains(t, x.fails(4, append(rotate, "--new-key", keys[0])...), "which key to retire is not clear")
	x.must(append(rotate, "--new-key", keys[0], "--retire", old[1])...)
	if err := os.WriteFile(filepath.Join(x.dir, "content", "package", "rotated.msi"), []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	contains(t, x.must("publish"), `package: release \d+ published: 3 files`)
	contains(t, x.table("incidents"), "no incident")
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
