//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
)

// TestFollowTells: who follows a run hears when it starts and how far it is,
// long before it ends.
func TestFollowTells(t *testing.T) {
	x := newCoreBox(t)
	port := freePort(t)
	x.edit("0.0.0.0:4222", fmt.Sprintf("127.0.0.1:%d", port), "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"tls://localhost:4222", fmt.Sprintf("tls://localhost:%d", port),
		"sites: {}", fmt.Sprintf("sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin, targets: {package: %q}}", filepath.Join(x.dir, "berlin", "package")))
	x.start()
	source := filepath.Join(x.dir, "content", "package")
	b := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "image.iso"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	x.must("limit", "--all", "0") // nothing moves by itself
	x.must("publish", "package")
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
	for began := time.Now(); !strings.Contains(x.must("sites"), "connected"); {
		if time.Since(began) > time.Minute {
			t.Fatalf("the site does not come\n%s", x.log)
		}
	}
	x.must("limit", "--all", "2Mbit")
	for began := time.Now(); !strings.Contains(x.must("sites"), " %"); { // the first that is told of a run is without bytes
		if time.Since(began) > time.Minute {
			t.Fatalf("the site does not begin\n%s", x.must("sites"))
		}
	}
	cmd := exec.Command("nightferry", "sync", "--site", "berlin", "--channel", "package", "--follow")
	cmd.Dir, cmd.Env = x.dir, x.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	s := bufio.NewScanner(out)
	for s.Scan() {
		fmt.Fprintln(&all, s.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	contains(t, all.String(), `berlin +package +stage +[1-9]?[0-9] % of 3.0 MiB`, `berlin +package +started`, `berlin +package +verified`)

	// What an order keeps behind is halted, and not only behind.
	x.must("halt", "--site", "berlin", "--reason", "test")
	if err := os.WriteFile(filepath.Join(source, "more"), []byte("more"), 0o644); err != nil {
		t.Fatal(err)
	}
	x.must("publish", "package")
	for began := time.Now(); !strings.Contains(x.must("sites"), "halted"); {
		if time.Since(began) > time.Minute {
			t.Fatalf("the site is not shown as halted\n%s", x.must("sites"))
		}
	}
	for _, args := range [][]string{{"sync", "--site", "berlin", "--follow"}, {"verify", "--site", "berlin"}} {
		contains(t, x.fails(8, args...), `halted by order [0-9a-f]{8} \(site berlin\)`, `remedy: nightferry halt status .*nightferry resume [0-9a-f]{8} lifts it`)
	}
	contains(t, x.table("sync", "--site", "berlin"), `1 run halted`)
}
