//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/testbed"
)

// freePort is one of loopback that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	addr, err := testbed.Address()
	if err != nil {
		t.Fatal(err)
	}
	return int(netip.MustParseAddrPort(addr).Port())
}

// TestVerifySites: verify of sites by way of the Core lists what differs, changes
// nothing unless it is told to, names who is away, and tells by its exit code.
func TestVerifySites(t *testing.T) {
	x := newCoreBox(t)
	port := freePort(t)
	x.edit("0.0.0.0:4222", fmt.Sprintf("127.0.0.1:%d", port), "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"tls://localhost:4222", fmt.Sprintf("tls://localhost:%d", port),
		"sites: {}", fmt.Sprintf("sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin, targets: {package: %q}}\n  lisbon: {domain: corp, region: emea, zone: Europe/Lisbon}", filepath.Join(x.dir, "berlin", "package")))
	x.start()
	source := filepath.Join(x.dir, "content", "package")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.msi": "one", "b.msi": "two", "c.msi": "three"} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x.must("publish", "package")

	x.fails(2, "verify")
	x.fails(2, "verify", "--all", "--site", "berlin")
	x.fails(2, "verify", "--full", x.dir)
	x.fails(2, "verify", "--site", "berlin", "--strict")
	contains(t, x.fails(14, "verify", "--site", "berlyn"), "berlyn", "berlin")
	contains(t, x.fails(10, "verify", "--site", "lisbon", "--channel", "package"), "could not be checked")

	token := x.must("site", "token", "berlin")
	state, root := filepath.Join(x.dir, "agent"), filepath.Join(x.dir, "berlin")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Enrol(t.Context(), token, agent.EnrolOptions{StateDir: state, Allow: []string{root}, Version: "test", Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Options{StateDir: state, Version: "test", Now: time.Now, Retry: 200 * time.Millisecond})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	at := func(name string) string { return filepath.Join(root, "package", name) }
	for began := time.Now(); ; {
		if b, err := json.Marshal(x.lines("sites", "--site", "berlin", "--channel", "package")); err == nil && strings.Contains(string(b), `"state":"current"`) {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the site does not get its release\n%s", x.log)
		}
	}
	second, warning, _ := x.try("", "site", "token", "berlin")
	contains(t, warning, `site berlin has joined already, on .* \(agent test, connected now\): using this token replaces and disconnects that agent`)
	x.secret = append(x.secret, strings.TrimSpace(second))
	site := []string{"verify", "--site", "berlin", "--channel", "package"}
	contains(t, x.must(append(site, "--full")...), `berlin +package +release 1: verified: 3 unchanged`)
	info, err := os.Stat(at("a.msi"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("a.msi"), []byte("ONE"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(at("a.msi"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at("b.msi")); err != nil {
		t.Fatal(err)
	}
	out, why, code := x.try("", append(site, "--full")...)
	contains(t, out, `different: 2 paths differ`, `differs +a.msi: hash: `, `differs +b.msi: missing: `)
	contains(t, why, `1 channel not as the release says; --repair`)
	if code != 3 {
		t.Errorf("code %d", code)
	}
	if b, _ := os.ReadFile(at("a.msi")); string(b) != "ONE" {
		t.Error("a check has changed the site")
	}
	contains(t, x.table("incidents"), `discrepancy`)
	found := map[string]int{}
	lines, _, _ := x.try("", append(site, "--json")...)
	for l := range strings.Lines(lines) {
		var o struct{ Event string }
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Errorf("%q: %v", l, err)
		}
		found[o.Event]++
	}
	if found["finding"] != 2 || found["order"] != 1 || found["site_ended"] != 1 || found["result"] != 1 {
		t.Errorf("%v", found)
	}
	contains(t, x.must(append(site, "--repair")...), `verified: 2 repaired`, `repaired +a.msi: hash: `, `repaired +b.msi: missing`)
	if b, _ := os.ReadFile(at("a.msi")); string(b) != "one" {
		t.Error("it is not repaired")
	}
	x.must(append(site, "--full")...)
	for began := time.Now(); !strings.Contains(x.must("status"), "same"); {
		if time.Since(began) > time.Minute {
			t.Fatalf("release 1 is not measured\n%s", x.log)
		}
	}
	for _, table := range [][]string{{"sites"}, {"where", "package/a.msi"}} {
		contains(t, x.table(table...), `package release 1, measured in the source: same`)
	}
	x.stop()
}
