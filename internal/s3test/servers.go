package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
)

// shared is the process's single Gateway, shared by all tests that need it and stopped after the last. It is a package
// variable because the server's own limit is one per process.
var shared struct {
	sync.Mutex
	users int
	gate  *Gateway
	dir   string
	names int
}

// Bucket is an empty bucket on a real S3 server, for one test alone.
type Bucket struct {
	Server
	Name string
	Dir  string // where the server keeps the bucket's objects as plain files; empty for MinIO
}

// URL returns the store URL of a prefix (which may be empty) of the bucket.
func (b Bucket) URL(prefix string) string { return b.Server.URL(b.Name, prefix) }

// Open opens the bucket as a store, with short backoffs.
func (b Bucket) Open(t testing.TB) bucket.Store {
	t.Helper()
	return testbed.OpenStore(t, b.URL(""), b.Options())
}

// S3 gives the test an empty bucket of this process's embedded S3 server. See Gateway for its effect on the working
// directory.
func S3(t testing.TB) Bucket {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.gate == nil {
		dir, err := os.MkdirTemp("", "nightferry-s3-")
		if err != nil {
			t.Fatal(err)
		}
		g, err := StartGateway(context.Background(), dir)
		if err != nil {
			t.Fatal(errors.Join(err, os.RemoveAll(dir)))
		}
		shared.gate, shared.dir = g, dir
	}
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			if err := errors.Join(shared.gate.Close(), os.RemoveAll(shared.dir)); err != nil {
				t.Error(err)
			}
			shared.gate = nil
		}
	})
	shared.names++
	name := fmt.Sprintf("test-%d", shared.names)
	if err := shared.gate.MakeBucket(name); err != nil {
		t.Fatal(err)
	}
	return Bucket{Server: shared.gate.Server, Name: name, Dir: filepath.Join(shared.dir, "data", name)}
}

// MinIO starts a MinIO process for the test alone and returns an empty bucket. The test fails if there is no minio
// program, because the proof needs a second real server.
func MinIO(t testing.TB) Bucket {
	t.Helper()
	program, err := findMinIO()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// On a fresh single-disk server, a folder in the data folder is a bucket.
	if err := os.MkdirAll(filepath.Join(dir, "data", "test"), 0o755); err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		s, err := startMinIO(t, program, dir)
		if err == nil {
			return Bucket{Server: s, Name: "test"}
		}
		if try == 4 {
			t.Fatal(err)
		}
	}
}

func findMinIO() (string, error) {
	if p, err := exec.LookPath("minio"); err == nil {
		return p, nil
	}
	home := os.Getenv("GOPATH")
	if home == "" {
		if out, err := exec.Command("go", "env", "GOPATH").Output(); err == nil {
			home = string(bytes.TrimSpace(out))
		}
	}
	p := filepath.Join(home, "bin", "minio")
	if runtime.GOOS == "windows" {
		p += ".exe"
	}
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("no minio on the PATH nor at %s: scripts/test installs it", p)
	}
	return p, nil
}

func startMinIO(t testing.TB, program, dir string) (Server, error) {
	port, err := testbed.FreeAddr()
	if err != nil {
		return Server{}, err
	}
	console, err := testbed.FreeAddr()
	if err != nil {
		return Server{}, err
	}
	s := Server{Endpoint: "http://" + port, Region: "us-east-1", AccessKey: "nightferry", SecretKey: "nightferry-secret"}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "server", "--quiet", "--address", port, "--console-address", console, filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey, "MINIO_BROWSER=off",
		"MINIO_CONFIG_DIR="+filepath.Join(dir, "config"), "HOME="+dir, "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off")
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		cancel()
		return Server{}, fmt.Errorf("start %s: %w", program, err)
	}
	done := make(chan error, 1)
	gone := make(chan struct{})
	go func() {
		done <- cmd.Wait()
		close(gone)
	}()
	stop := func() {
		cancel()
		<-gone
	}
	// Wait for ready, not live: a live MinIO may still return 503 for everything.
	if err := waitHealthy(t.Context(), s.Endpoint+"/minio/health/ready", done); err != nil {
		stop()
		return Server{}, fmt.Errorf("start %s: %w\n%s", program, err, log)
	}
	t.Cleanup(stop)
	return s, nil
}
