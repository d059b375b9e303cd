//go:build unix

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"nightferry/internal/pack"
	"nightferry/internal/s3test"
)

const exitInterrupted = 130

// metadata bounds the bytes of a run other than blocks and packs.
const metadata = 256 << 10

// pace limits bodies to about 20 MB/s, so that there is time to interrupt the program and little unread data is in
// flight. It delays responses when they are written and requests when they are read.
func pace(t *testing.T) s3test.Fault {
	tick := time.NewTicker(3 * time.Millisecond)
	t.Cleanup(tick.Stop)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Body != nil {
				r.Body = &pacedReader{ReadCloser: r.Body, tick: tick.C}
			}
			next.ServeHTTP(&pacedWriter{w, tick.C, r.Context()}, r)
		})
	}
}

const paceUnit = 64 << 10

type pacedReader struct {
	io.ReadCloser
	tick <-chan time.Time
}

type pacedWriter struct {
	http.ResponseWriter
	tick <-chan time.Time
	ctx  context.Context
}

func (p *pacedReader) Read(b []byte) (int, error) {
	<-p.tick
	return p.ReadCloser.Read(b[:min(len(b), paceUnit)])
}

func (p *pacedWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		select {
		case <-p.tick:
		case <-p.ctx.Done():
			return n, p.ctx.Err()
		}
		m, err := p.ResponseWriter.Write(b[:min(len(b), paceUnit)])
		n, b = n+m, b[m:]
		if err != nil {
			return n, err
		}
		if err := http.NewResponseController(p.ResponseWriter).Flush(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Unwrap lets http.ResponseController reach the connection.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// cli is the program, built for this test, with a bucket whose traffic is counted.
type cli struct {
	t       *testing.T
	program string
	dir     string
	bucket  s3test.Bucket
	wire    *s3test.Wire
}

// newCLI builds cmd/nightferry and starts the S3 server.
func newCLI(t *testing.T) *cli {
	t.Helper()
	c := &cli{t: t, dir: t.TempDir()}
	c.program = filepath.Join(c.dir, "nightferry")
	if out, err := exec.Command("go", "build", "-o", c.program, "nightferry/cmd/nightferry").CombinedOutput(); err != nil {
		t.Fatalf("build nightferry: %v\n%s", err, out)
	}
	c.bucket, c.wire = s3test.Through(t, s3test.S3(t), pace(t))
	return c
}

func (c *cli) at(name string) string { return filepath.Join(c.dir, name) }

// run runs the program and returns its exit code and traffic. It interrupts the program once stop returns true for the
// traffic so far.
func (c *cli) run(stop func(s3test.WireCounts) bool, args ...string) (code int, counts s3test.WireCounts) {
	c.t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(c.t.Context(), c.program, args...)
	cmd.Env = append(append(os.Environ(), c.bucket.Env()...), "NIGHTFERRY_STATE="+c.at("state"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, &said, &said
	c.wire.Reset()
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if stop != nil && stop(c.wire.Counts()) {
				stop = nil
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					c.t.Error(err)
				}
			}
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				c.t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != 0 && code != exitInterrupted {
				c.t.Fatalf("%v ended with %d:\n%s", args, code, &said)
			}
			return cmd.ProcessState.ExitCode(), c.wire.Counts()
		}
	}
}

// TestCrashByCtrlC interrupts the program itself. A resumed pull fetches at most one block per connection twice. A
// resumed push sends only the packs again that were in flight.
func TestCrashByCtrlC(t *testing.T) {
	c := newCLI(t)
	const conns = 2
	tr := tree{}
	src := generator(7)
	for i := range 5 {
		tr.file(fmt.Sprintf("image-%d.iso", i), random(src, 13<<20))
	}
	for i := range 100 {
		tr.file(fmt.Sprintf("driver/%d.inf", i), random(src, 9000))
	}
	if err := lay(c.at("source"), tr); err != nil {
		t.Fatal(err)
	}
	url := c.bucket.URL("")
	c.run(nil, "init", "--keys", c.at("keys"), url)
	push := []string{"push", "--release-key", c.at("keys/nightferry-release.key"), "--connections", "1", c.at("source"), url, channel}
	code, cut := c.run(func(n s3test.WireCounts) bool { return n.Up > 40<<20 }, push...)
	if code != exitInterrupted {
		t.Fatalf("the push was not interrupted: exit code %d, %v", code, cut)
	}
	code, rest := c.run(nil, push...)
	var total int64
	for _, n := range tr {
		total += int64(len(n.data))
	}
	// Random content does not compress.
	twice := cut.Up + rest.Up - total
	t.Logf("push: %d MiB, interrupted after %v, then %v more", total>>20, cut, rest)
	if code != 0 || twice > pack.TargetSize+2*pack.MaxStored+metadata {
		t.Errorf("exit code %d, %d bytes were sent twice over one connection", code, twice)
	}

	pull := func(to string) []string {
		return []string{"pull", "--connections", strconv.Itoa(conns), url, channel, c.at(to)}
	}
	_, whole := c.run(nil, pull("whole")...)
	for _, after := range []int64{1 << 20, 23 << 20, whole.Down - 3<<20} {
		to := fmt.Sprintf("after-%d", after)
		code, cut := c.run(func(n s3test.WireCounts) bool { return n.Down > after }, pull(to)...)
		if code != exitInterrupted {
			t.Fatalf("the pull was not interrupted: exit code %d, %v", code, cut)
		}
		if seen, err := see(c.at(to)); err != nil || len(seen) > 0 {
			t.Errorf("something is visible before all of it is staged: %v %v", seen, err)
		}
		_, rest := c.run(nil, pull(to)...)
		if err := same(c.at(to), tr); err != nil {
			t.Error(err)
		}
		twice := cut.Down + rest.Down - whole.Down
		t.Logf("pull: %d KiB, interrupted after %d KiB, then %d KiB more: %d KiB came twice", whole.Down>>10, cut.Down>>10, rest.Down>>10, twice>>10)
		if twice > conns*pack.MaxBlock+metadata {
			t.Errorf("%d bytes came twice over %d connections", twice, conns)
		}
	}
}
