package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Credentials of the server, which listens on loopback only and for one run.
const (
	accessKey = "benchmark"
	secretKey = "benchmark-only"
	region    = "us-east-1"
)

// startMinIO starts one MinIO process with fresh data. It returns its address and a function that stops it and removes
// the data.
func startMinIO(ctx context.Context, dir string) (addr string, stop func() error, err error) {
	bin, err := find("minio", "run scripts/test once, it installs MinIO")
	if err != nil {
		return "", nil, err
	}
	data := filepath.Join(dir, "minio")
	if err := os.RemoveAll(data); err != nil {
		return "", nil, fmt.Errorf("clear the server's data: %w", err)
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return "", nil, fmt.Errorf("make the server's data folder: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("find a free port: %w", err)
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, fmt.Errorf("find a free port: %w", err)
	}
	// Not CommandContext: on an interrupt the tools must end first.
	cmd := exec.Command(bin, "server", data, "--address", addr, "--quiet")
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off")
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start minio: %w", err)
	}
	var ended error // its exit error; set before exited closes
	exited := make(chan struct{})
	go func() { ended = cmd.Wait(); close(exited) }()
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop minio: %w", err)
		}
		select {
		case <-exited: // stopped on purpose: ignore the exit error
		case <-time.After(20 * time.Second):
			if err := cmd.Process.Kill(); err != nil {
				return fmt.Errorf("kill minio: %w", err)
			}
			<-exited
		}
		return os.RemoveAll(data)
	}
	for {
		if ready(ctx, addr) {
			return addr, stop, nil
		}
		select {
		case <-exited:
			return "", nil, fmt.Errorf("start minio: it ended: %w\n%s", ended, said.text)
		case <-ctx.Done():
			return "", nil, errors.Join(ctx.Err(), stop())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func ready(ctx context.Context, addr string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/minio/health/ready", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// find searches a program on the PATH and in the folder of go install.
func find(name, remedy string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	out, err := exec.Command("go", "env", "GOPATH").Output()
	if err == nil {
		if p, err := exec.LookPath(filepath.Join(string(out[:max(0, len(out)-1)]), "bin", name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("find %s: not on the PATH: %s", name, remedy)
}
