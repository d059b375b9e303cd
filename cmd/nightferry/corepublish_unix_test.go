//go:build unix

package main

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"nightferry/internal/trust"
)

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
	contains(t, x.fails(14, "where", "package/sub"), `"sub" is a folder of "package": name a file in it, such as "sub/bar.msi"`)
	contains(t, x.fails(14, "where", "package/su"), `named "su": name one that begins so, such as "sub/"`)
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
	if list := x.lines("job", "list", "--limit", "2"); len(list) != 2 || list[0]["id"] != job || list[1]["id"] == job {
		t.Errorf("job list: %v", list)
	}
	x.fails(14, "job", "stop", "none")
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
