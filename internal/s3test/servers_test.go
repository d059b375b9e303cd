package s3test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bucket"
)

func TestServersAreReal(t *testing.T) {
	for name, b := range map[string]func(testing.TB) Bucket{"versitygw": S3, "minio": MinIO} {
		t.Run(name, func(t *testing.T) {
			s := b(t).Open(t)
			if _, err := s.Put(t.Context(), "a/b", bucket.Bytes([]byte("hello")), bucket.Cond{}); err != nil {
				t.Fatal(err)
			}
			r, info, err := s.Get(t.Context(), "a/b", 1, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); string(got) != "ell" || err != nil || info.Size != 5 {
				t.Fatalf("got %q, %v, %+v", got, err, info)
			}
		})
	}
}

// TestGatewayEndsWithItsProcess kills a process that uses a gateway: the server must end and remove its folder.
func TestGatewayEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("NIGHTFERRY_CHILD"); dir != "" {
		g, err := StartGateway(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("CHILD:", g.Endpoint)
		select {} // until it is killed
	}
	dir := filepath.Join(t.TempDir(), "s3")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGatewayEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), "NIGHTFERRY_CHILD="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	endpoint, ok := strings.CutPrefix(strings.TrimSpace(line), "CHILD: ")
	if !ok {
		t.Fatalf("the child printed %q: %v", line, err)
	}
	get := func() error {
		resp, err := http.Get(endpoint)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatalf("before: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it reports the kill
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) && get() != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a minute after the process was killed, its server still runs at %s on %s", endpoint, dir)
		}
	}
}

// TestProgramIsBuiltAnew changes the sources of the gateway's program: their state must change with each of the files.
func TestProgramIsBuiltAnew(t *testing.T) {
	sources := t.TempDir()
	seen := map[string]string{}
	for _, change := range []string{"main.go", "go.mod", "go.sum", "main.go"} {
		name := filepath.Join(sources, change)
		old, _ := os.ReadFile(name)
		if err := os.WriteFile(name, append(old, "// more\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
		state, err := stateOf(sources)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[state]; ok {
			t.Errorf("a change of %s gives the state after the change of %s", change, before)
		}
		seen[state] = change
	}
}
