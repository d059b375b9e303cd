//go:build unix

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nightferry/internal/s3test"
)

// haltBox is a coreBox with two sites, which nobody has enrolled.
func haltBox(t *testing.T, b s3test.Bucket) *coreBox {
	x := newCoreBoxOver(t, b)
	x.edit("0.0.0.0:4222", "127.0.0.1:0", "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"sites: {}", "sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin}\n  lisbon: {domain: corp, region: emea, zone: Europe/Lisbon}")
	return x
}

// TestHaltCommands: the forms of halt and resume, what they refuse, what they
// tell, and that pushes, pulls and gc of the store obey without asking the Core.
func TestHaltCommands(t *testing.T) {
	x := haltBox(t, s3test.S3(t))
	x.start()
	source := filepath.Join(x.dir, "content", "package")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "a.msi"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	x.must("publish", "package")
	contains(t, x.must("halt", "status"), "no order to stop is active")

	contains(t, x.fails(2, "halt"), "exactly one of --all")
	x.fails(2, "halt", "--all", "--site", "berlin")
	contains(t, x.fails(14, "halt", "--site", "berlyn"), "berlyn", "berlin")
	contains(t, x.must("halt", "status"), "no order to stop is active") // a slip stops nobody

	long := strings.Repeat("the package of tonight was taken back by its maker ", 4)
	var orders []string
	for i, form := range [][]string{{"--all"}, {"--region", "emea", "--reason", long}, {"--domain", "corp", "--reason", "b"}, {"--site", "berlin", "--reason", "c"}, {"--channel", "package", "--reason", "d"}} {
		out := x.must(append([]string{"halt"}, form...)...)
		sites := 2
		if form[0] == "--site" {
			sites = 1
		}
		_, rest, _ := strings.Cut(out, "nightferry resume ")
		order, _, _ := strings.Cut(rest, "\n")
		orders = append(orders, order)
		contains(t, out, fmt.Sprintf(`order %s is given to %d site`, order, sites), `berlin +NOT ENROLLED`, fmt.Sprintf(`0 of %d`, sites))
		if i == 0 {
			contains(t, out, "no reason given")
		}
	}
	contains(t, x.table("halt", "status"), `order [0-9a-f]{8}: stop all\n`, `stop region emea\n`, `stop domain corp\n`, `stop site berlin\n`, `stop channel package\n`, `the package of tonight`)
	lines := x.lines("halt", "status")
	if len(lines) != 5 {
		t.Fatalf("%d lines for 5 orders", len(lines))
	}
	for _, l := range lines {
		for _, field := range []string{"order", "scope", "reason", "by", "at", "sites"} {
			if l[field] == nil {
				t.Errorf("no %s in %v", field, l)
			}
		}
	}
	contains(t, x.must("halt", "status", x.store), `stop all`, `stop region emea`, `stop channel package`) // the bucket has them
	contains(t, x.fails(8, "publish", "package"), `remedy: nightferry halt status shows its sites; nightferry resume [0-9a-f]{8} lifts it`)
	x.fails(8, "pull", x.store, "package", "target")
	x.fails(8, "gc", x.store)

	x.fails(2, "resume")
	x.fails(14, "resume", "99999999")
	x.fails(2, "resume", "--order", "9")
	for _, o := range orders[:4] {
		contains(t, x.must("resume", o), "order "+o+" is lifted")
	}
	contains(t, x.fails(14, "resume", orders[0]), "no such order") // it is over already
	x.fails(8, "pull", x.store, "package", "target")
	contains(t, x.must("resume", "--channel", "package"), "order "+orders[4]+" is lifted")
	contains(t, x.table("halt", "status", "--lifted"), "lifted 20")
	contains(t, x.must("halt", "status"), "no order to stop is active")
	x.must("pull", x.store, "package", "target")
	x.must("publish", "package")
	x.stop()
}

// TestPain14_CoreKilledBeforeTheBucketHasIt: the Core has told its sites of an
// order and kept it, and dies, as by SIGKILL, while it writes it into the store.
// Started again, it has the order, and then the store has, too.
func TestPain14_CoreKilledBeforeTheBucketHasIt(t *testing.T) {
	var hold atomic.Bool
	reached, release := make(chan struct{}, 16), make(chan struct{})
	defer close(release)
	b, _ := s3test.Through(t, s3test.S3(t), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if hold.Load() && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/halt") {
				reached <- struct{}{}
				select {
				case <-release:
				case <-r.Context().Done():
				}
				return // it never gets there
			}
			next.ServeHTTP(rw, r)
		})
	})
	x := haltBox(t, b)
	x.start()
	hold.Store(true)
	cmd := exec.Command("nightferry", "halt", "--all", "--reason", "bad package")
	cmd.Dir, cmd.Env = x.dir, x.env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(time.Minute):
		t.Fatal("the order never went to the store")
	}
	if err := x.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-x.ended
	_ = x.cmd.Wait() // it was killed
	if err := cmd.Wait(); err == nil {
		t.Errorf("halt says that all is well: %s", &said)
	}
	hold.Store(false)
	contains(t, x.must("halt", "status", x.store), "no order to stop is active")
	x.start()
	contains(t, x.must("halt", "status"), "stop all", "bad package")
	x.fails(8, "publish", "package")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if out := x.must("halt", "status", x.store); strings.Contains(out, "bad package") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the store never gets the order")
		}
	}
	x.stop()
}

// TestHaltOfACoreThatHangs: the Core's process is stopped with its socket open,
// and then it is gone. halt gives up in time and names the two ways that work;
// what was given up is not carried out when the Core wakes.
func TestHaltOfACoreThatHangs(t *testing.T) {
	x := haltBox(t, s3test.S3(t))
	x.start()
	if err := x.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out := x.fails(6, "halt", "--all")
	if err := x.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	contains(t, out, "does not answer within 10s", "nothing was ordered", "nightferry halt --all --release-key FILE STORE", "nightferry-agent halt")
	contains(t, x.must("halt", "status"), "no order to stop is active")
	x.stop()
	contains(t, x.fails(6, "halt", "--all"), "is not running", "nightferry halt --all --release-key FILE STORE", "nightferry-agent halt")
}

// TestHaltWithoutTheStoreSaysSo: the sites are told, and whoever orders it
// learns that those who cannot hear the Core are not.
func TestHaltWithoutTheStoreSaysSo(t *testing.T) {
	var away atomic.Bool
	b, _ := s3test.Through(t, s3test.S3(t), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if away.Load() && strings.HasSuffix(r.URL.Path, "/halt") {
				s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "down for the test")
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	x := haltBox(t, b)
	x.start()
	away.Store(true)
	contains(t, x.must("halt", "--all", "--reason", "x"), "the store does not have it yet, which is tried again", "NOT IN THE STORE YET")
	contains(t, x.table("halt", "status"), "NOT IN THE STORE YET")
	if l := x.lines("halt", "status"); len(l) != 1 || l[0]["unstored"] != true {
		t.Errorf("%v", l)
	}
	// A Core that runs and cannot read its store is not fine.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, _, code := x.try("", "core", "check")
		if code == 3 && strings.Contains(out, "BAD  store") && strings.Contains(unwrapped(out), "the running Core cannot read it") {
			contains(t, out, `\?    vault +unproven: the running Core`)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("core check ends with %d: %s", code, out)
		}
	}
	x.stop()
}
