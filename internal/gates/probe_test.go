//go:build linux

package gates

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a probe finds.
const (
	open     = "yes"
	shut     = "no"
	noDoor   = "no door" // the system keeps it from the socket
	sentAway = "refused" // the Core does
	unknown  = "unknown" // there is no such call
)

// probe is the test program under another account: it tries what its arguments name, and writes what it finds as JSON.
func probe(kind string, args []string) int {
	found := map[string]string{}
	for _, a := range args {
		switch kind {
		case "socket":
			socket, call, _ := strings.Cut(a, "=")
			found[call] = tryCall(socket, call)
		case "read":
			found[a] = tryRead(a)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		return 1
	}
	return 0
}

// tryCall makes a call, by METHOD /path, that does nothing where it is allowed: what changes something wants a body that
// makes sense.
func tryCall(socket, call string) string {
	method, path, _ := strings.Cut(call, " ")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(`{"nonsense":true}`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://core"+strings.ReplaceAll(path, "{id}", "ffff"), body)
	if err != nil {
		return err.Error()
	}
	res, err := client.Do(req)
	if errors.Is(err, fs.ErrPermission) {
		return noDoor
	}
	if err != nil {
		return hungUp(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	switch {
	case res.StatusCode == http.StatusForbidden:
		return sentAway
	case err != nil:
		return hungUp(err)
	case bytes.Contains(b, []byte("does not know")):
		return unknown
	}
	return open
}

// hungUp tells a connection that the Core has closed, without reading, from other failures. Its word of farewell may be
// lost with what it has not read.
func hungUp(err error) string {
	for _, closed := range []string{"connection reset", "EOF", "broken pipe", "readLoopPeek", "closed"} {
		if strings.Contains(err.Error(), closed) {
			return sentAway
		}
	}
	return err.Error()
}

func tryRead(path string) string {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		_, err = os.ReadDir(path)
	} else if err == nil {
		_, err = os.ReadFile(path)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return shut
	case err != nil:
		return err.Error()
	}
	return open
}

// as runs the probe under an account; nil is the tests' own.
func as(t *testing.T, who *account, kind string, args ...string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(built.bin, "probe"), args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), probeEnv+"="+kind)
	who.run(cmd)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("probe: %v\n%s", err, complaint.String())
	}
	found := map[string]string{}
	if err := json.Unmarshal(out.Bytes(), &found); err != nil || len(found) != len(args) {
		t.Fatalf("probe: %v: %d of %d tried\n%s", err, len(found), len(args), out.String())
	}
	return found
}
