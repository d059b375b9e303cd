//go:build linux

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bin is the folder of the programs. It is a package variable because only TestMain can build them once, and remove
// them after the last test.
var bin string

func TestMain(m *testing.M) {
	code, err := build(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(run func() int) (code int, err error) {
	if bin, err = os.MkdirTemp("", "chaos-bin-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	out, err := exec.Command("go", "build", "-o", bin+"/", "nightferry/cmd/nightferry", "nightferry/cmd/nightferry-agent").CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return run(), nil
}

// daemon is a long-running process. Its methods are safe for concurrent use.
type daemon struct {
	name string
	args []string
	env  []string
	log  string // file

	mu   sync.Mutex
	cmd  *exec.Cmd // nil if it is not running
	done chan struct{}
	died []string // its unexpected exits
}

// start starts the process, unless it is running.
func (d *daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		return nil
	}
	f, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // the process has its own
	cmd := exec.Command(filepath.Join(bin, d.args[0]), d.args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no process outlives a test that panics
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	d.cmd, d.done = cmd, done
	go func() {
		err := cmd.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.cmd == cmd { // the exit was unexpected
			d.cmd = nil
			d.died = append(d.died, fmt.Sprintf("%v: %s", err, last(d.log)))
		}
		close(done)
	}()
	return nil
}

// signal sends a signal, waits for the exit and returns its error.
func (d *daemon) signal(s os.Signal) error {
	d.mu.Lock()
	cmd, done := d.cmd, d.done
	d.cmd = nil
	d.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("%s: it did not end within 30 s of %v", d.name, s)
	}
	if s != os.Kill && !cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %v ends it with %v: %s", d.name, s, cmd.ProcessState, last(d.log))
	}
	return nil
}

// deaths returns the unexpected exits, and clears the list.
func (d *daemon) deaths() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.died
	d.died = nil
	return all
}

// last returns the last line of a log.
func last(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// ask runs a command and returns its output.
func ask(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, args[0]), args[1:]...)
	cmd.Env = env
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args[:min(len(args), 3)], " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// within waits until ready returns true. On a timeout it reports the last error of ready.
func within(t *testing.T, limit time.Duration, what string, ready func() (bool, error)) {
	t.Helper()
	began := time.Now()
	for {
		ok, err := ready()
		if ok {
			t.Logf("%s after %v", what, time.Since(began).Round(time.Second/10))
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
