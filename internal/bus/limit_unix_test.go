//go:build unix

package bus

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSilentPeersLeaveDescriptors: 1224 peers connect and send nothing. The process, which may have 512 descriptors,
// still opens files and sockets of its own.
func TestSilentPeersLeaveDescriptors(t *testing.T) {
	if os.Getenv("NIGHTFERRY_TEST_SILENT") != "" {
		silentServer(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSilentPeersLeaveDescriptors$")
	cmd.Env = append(os.Environ(), "NIGHTFERRY_TEST_SILENT=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func(prefix string) string {
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return rest
			}
		}
		t.Fatalf("the server never wrote %q", prefix)
		return ""
	}
	addr := next("listens ")
	for range 1224 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break // the queue of the system is full
		}
		defer func() { _ = conn.Close() }()
	}
	if _, err := fmt.Fprintln(in, "now"); err != nil {
		t.Fatal(err)
	}
	if got := next("opened "); got != "64 <nil>" {
		t.Errorf("it opened %s", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// silentServer is the process of the server.
func silentServer(t *testing.T) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 512, Max: 512}); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	fmt.Println("listens", w.server.Addr())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for w.server.Connections() < connectionsWithin(512)-1 { // until the server has taken what it takes
		runtime.Gosched()
	}
	n, err := 0, error(nil)
	for end := time.Now().Add(patience); n < 64 && time.Now().Before(end); { // refused peers take descriptors for a moment
		var f *os.File
		if f, err = os.Open(os.DevNull); err == nil {
			n++
			defer func() { _ = f.Close() }()
		}
	}
	fmt.Println("opened", n, err)
}
