package s3test

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
	"runtime"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
)

// shared is the process's gateway, which all of its tests share. It stays until the process ends.
var shared struct {
	sync.Mutex
	Server
	data    string   // where buckets are folders; empty: not started
	gateway *Gateway // nil: started by a script
}

// Bucket is an empty bucket on a real S3 server, for one test alone.
type Bucket struct {
	Server
	Name string
}

// URL returns the store URL of a prefix (which may be empty) of the bucket.
func (b Bucket) URL(prefix string) string { return b.Server.URL(b.Name, prefix) }

// Open opens the bucket as a store, with short backoffs.
func (b Bucket) Open(t testing.TB) bucket.Store {
	t.Helper()
	return testbed.OpenStore(t, b.URL(""), b.Options())
}

// S3 gives the test an empty bucket on a versitygw server. scripts/wine and scripts/as-user start one for all test
// processes, because their tests cannot build it, and name its URL and the folder of its buckets in NIGHTFERRY_S3 and NIGHTFERRY_S3_DATA.
func S3(t testing.TB) Bucket {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.data == "" {
		shared.Server, shared.data = serverAt(os.Getenv("NIGHTFERRY_S3")), os.Getenv("NIGHTFERRY_S3_DATA")
	}
	if shared.data == "" {
		dir, err := os.MkdirTemp("", "nightferry-s3-")
		if err != nil {
			t.Fatal(err)
		}
		g, err := StartGateway(context.Background(), dir)
		if err != nil {
			t.Fatal(errors.Join(err, os.RemoveAll(dir)))
		}
		shared.Server, shared.data, shared.gateway = g.Server, filepath.Join(dir, "data"), g
	}
	dir, err := os.MkdirTemp(shared.data, "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.RemoveAll(dir) // a late request may still write there; the server removes all at its end
	})
	return Bucket{Server: shared.Server, Name: filepath.Base(dir)}
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
	s := serverAt("http://" + port)
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

// waitHealthy polls until url returns 200. It fails at once if the server ends before.
func waitHealthy(ctx context.Context, url string, done <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-done:
			if err == nil {
				err = errors.New("it ended at once")
			}
			return err
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
