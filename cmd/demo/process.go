package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// tools are the two programs of the product, built once.
type tools struct {
	core, agent string
	env         []string // environment of every process
}

// build builds the programs.
func build(ctx context.Context, dir string) (tools, error) {
	ext := ""
	if runtime.GOOS == "windows" {
		ext = ".exe"
	}
	t := tools{core: filepath.Join(dir, "nightferry"+ext), agent: filepath.Join(dir, "nightferry-agent"+ext)}
	for name, out := range map[string]string{"nightferry/cmd/nightferry": t.core, "nightferry/cmd/nightferry-agent": t.agent} {
		text, err := exec.CommandContext(ctx, "go", "build", "-o", out, name).CombinedOutput()
		if err != nil {
			return t, fmt.Errorf("build %s: %w: %s", name, err, bytes.TrimSpace(text))
		}
	}
	return t, nil
}

// ask runs a command and returns its standard output.
func (t tools) ask(ctx context.Context, stdin string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = t.env
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// daemon is a long-running process.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// start starts a daemon and appends its output to the file log.
func (t tools) start(log, name string, args ...string) (*daemon, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own descriptor
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = t.env, f, f
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(name), err)
	}
	d := &daemon{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(d.done) }()
	return d, nil
}

// ended reports whether the process is gone.
func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// kill kills the process without warning.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// stop sends SIGTERM and kills the process after ten seconds.
func (d *daemon) stop() {
	if runtime.GOOS == "windows" || d.cmd.Process.Signal(syscall.SIGTERM) != nil {
		d.kill()
		return
	}
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
		d.kill()
	}
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

// until calls ready at the given interval until it returns true.
func until(ctx context.Context, limit, every time.Duration, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var reason error
	for {
		ok, err := ready()
		if ok {
			return nil
		}
		if err != nil {
			reason = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not happen within %v: %w", what, limit, errors.Join(context.Cause(ctx), reason))
		case <-time.After(every):
		}
	}
}
