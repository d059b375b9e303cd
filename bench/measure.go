package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// spawnFlag makes this program run one command and report its usage. Linux passes the memory high-water mark on at
// exec, so a command's peak is never below that of its starter. The starter must therefore be a small process, not the
// one that runs the proxy.
const spawnFlag = "-spawn"

// usage is the cost of one run of a tool.
type usage struct {
	Wall time.Duration // from start to exit, and the sync of the target's file system after it
	Sync time.Duration // the part of Wall that was the sync
	CPU  time.Duration // user and system time of the tool and its children
	RSS  int64         // peak resident bytes; of the largest process if a tool starts several
	Net  traffic
	Exit int
}

// command is a tool to run: its working directory, arguments and environment variables.
type command struct {
	dir  string
	args []string
	env  []string
}

func (c command) String() string { return strings.Join(c.args, " ") }

// measure runs c, then syncs the file system of target, and returns the cost of both. It syncs that file system
// before as well, so that no tool pays for the dirty pages of the previous one.
func (b *bench) measure(ctx context.Context, c command, target string) (usage, error) {
	if err := syncDisk(target); err != nil {
		return usage{}, err
	}
	b.counter.reset()
	u, err := spawn(ctx, c)
	if err != nil {
		return u, err
	}
	began := time.Now()
	if err := syncDisk(target); err != nil {
		return u, err
	}
	u.Sync = time.Since(began)
	u.Wall += u.Sync
	u.Net = b.counter.read()
	return u, nil
}

// spawn runs c through a small process of our own. If the tool fails, the error holds the end of its output.
func spawn(ctx context.Context, c command) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append([]string{spawnFlag}, c.args...)...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), c.env...)
	var said tail
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return usage{}, fmt.Errorf("run %s: %w\n%s", c, err, said.text)
	}
	var u usage
	if err := json.Unmarshal(out, &u); err != nil {
		return usage{}, fmt.Errorf("run %s: read what it used: %w", c, err)
	}
	if u.Exit != 0 {
		return u, fmt.Errorf("run %s: exit code %d\n%s", c, u.Exit, said.text)
	}
	return u, nil
}

// spawned is the other side of spawn: it prints the usage as JSON. The tool's output goes to stderr.
func spawned(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	began := time.Now()
	err := cmd.Run()
	u := usage{Wall: time.Since(began)}
	if cmd.ProcessState == nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	u.Exit = cmd.ProcessState.ExitCode()
	u.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u.RSS, err = peakRSS(cmd.ProcessState); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if err := json.NewEncoder(stdout).Encode(u); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// tail keeps the last few KiB written to it, because a failing tool reports the reason at the end.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}
