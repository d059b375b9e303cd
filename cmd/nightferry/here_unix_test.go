//go:build unix

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A folder of another account holds a configuration and the socket of a server
// that collects what it is sent. An operator stands in it.
func TestForeignFolderIsNotObeyed(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "here") // the socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	yaml := fmt.Sprintf("version: 1\nstore: s3://b/p?region=eu-west-1\ndata: %s\npublic: ['tls://x:1']\nchannels: {}\nregions: {}\ndomains: {}\nsites: {}\n", data)
	for _, err := range []error{os.Mkdir(data, 0o755), os.WriteFile(filepath.Join(dir, configName), []byte(yaml), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(data, "core.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		_, _ = w.Write([]byte(`{"name":"s3","version":1,"orders":[1],"epoch":1}`))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	try := func(want int, args ...string) {
		t.Helper()
		cmd := exec.Command("nightferry", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("AKIASECRET topsecretkey\n")
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, envConfig+"=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want || calls.Load() != 0 {
			t.Errorf("%v: exit code %d, want %d, %d calls: %v\n%s", args, code, want, calls.Load(), err, out)
		}
	}
	secret, halt := []string{"secret", "set", "s3"}, []string{"halt", "--all", "--reason", "stop everything"}
	try(14, secret...)
	try(14, halt...)
	if os.Geteuid() != 0 {
		t.Log("only root can give the folder to another account: the rest is tried as root")
		return
	}
	// Named explicitly, the folder is refused as long as any part of it is the other account's.
	for _, name := range []string{configName, "data", "data/core.sock", "."} {
		p := filepath.Join(dir, name)
		if err := os.Lchown(p, 4242, 4242); err != nil {
			t.Fatal(err)
		}
		try(7, append(secret, "--config", filepath.Join(dir, configName))...)
		try(7, append(halt, "--config", filepath.Join(dir, configName))...)
		if err := os.Lchown(p, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}
