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

// Results of a probe.
const (
	open     = "yes"
	shut     = "no"
	noDoor   = "no door" // the system denies access to the socket
	sentAway = "refused" // the Core refuses the caller
	unknown  = "unknown" // the call does not exist
)

// probe runs in a process of another account. It tries everything that its arguments name and prints the results as
// JSON.
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

// tryCall makes a call, given as METHOD /path, that has no effect even if allowed: its body is invalid.
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
	if res.Header.Get("Content-Type") == "text/event-stream" {
		return open // it has no end
	}
	b, err := io.ReadAll(res.Body)
	switch {
	case res.StatusCode == http.StatusForbidden:
		return sentAway
	case err != nil:
		return hungUp(err)
	case bytes.Contains(b, []byte("the running Core does not know")):
		return unknown
	}
	return open
}

// hungUp returns refused if the Core closed the connection. If the Core closes it before it has read the request, its
// answer may be lost.
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

// as runs the probe under an account; nil is the account of the tests.
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
