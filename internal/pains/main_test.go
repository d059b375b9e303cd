package pains

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// shared holds what all tests of the process share: the module's root, read before the embedded S3 server changes the
// working directory, and the program, built for the first test that needs it.
var shared struct {
	module  string
	build   sync.Once
	dir     string
	program string
	err     error
}

// childJob is the environment variable that makes this binary run one job and exit instead of testing.
const childJob = "NIGHTFERRY_PAINS_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childJob); job != "" {
		if err := child(job); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	wd, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	shared.module = filepath.Join(wd, "..", "..")
	undo, err := inMemory()
	if err != nil {
		panic(err)
	}
	status := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	undo()
	os.Exit(status)
}

// program builds nightferry as released, once for all tests.
func program(t testing.TB) string {
	t.Helper()
	shared.build.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "nightferry-program-"); shared.err != nil {
			return
		}
		shared.program = filepath.Join(shared.dir, "nightferry")
		if runtime.GOOS == "windows" {
			shared.program += ".exe"
		}
		cmd := exec.Command("go", "build", "-o", shared.program, "./cmd/nightferry")
		cmd.Dir, cmd.Stderr = shared.module, os.Stderr
		shared.err = cmd.Run()
	})
	must(t, shared.err)
	return shared.program
}

// ran is the result of running the program.
type ran struct {
	code        int
	out, errOut string
	state       *os.ProcessState
	peak        int64 // bytes of memory
}

// initCLI creates a repository with `nightferry init`, and returns its URL and its release key file.
func (w *world) initCLI() (store, key string) {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "keys")
	store = w.url + "-cli"
	if w.bucket.Name != "" {
		store = w.bucket.URL("cli")
	}
	if r := w.nightferry("init", "--keys", dir, store); r.code != 0 {
		w.t.Fatalf("init ended with %d: %s", r.code, r.errOut)
	}
	return store, filepath.Join(dir, "nightferry-release.key")
}

// nightferry runs the program as an operator would, with its state in the world's folder.
func (w *world) nightferry(args ...string) ran {
	w.t.Helper()
	return w.run(program(w.t), args...)
}

func (w *world) run(name string, args ...string) ran {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "NIGHTFERRY_STATE="+w.state)
	if w.bucket.Endpoint != "" {
		cmd.Env = append(cmd.Env, w.bucket.Env()...)
	}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	peak := watchMemory(cmd.Process.Pid)
	_ = cmd.Wait() // the exit code is checked instead
	return ran{cmd.ProcessState.ExitCode(), out.String(), errOut.String(), cmd.ProcessState, peak()}
}

// watchMemory follows the peak memory of a process, in bytes, until the returned function is called. It returns 0 if
// the system has no such figure. It does not use the rusage of the child, because the kernel counts the parent's
// resident memory at the fork into it.
func watchMemory(pid int) (peak func() int64) {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var kib int64
				if _, err := fmt.Sscan(rest, &kib); err == nil {
					most = max(most, kib<<10)
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				done <- most
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-done }
}
