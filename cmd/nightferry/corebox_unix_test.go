//go:build unix

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"nightferry/internal/s3test"
)

// coreBox is a Core of its own, run by the real program.
type coreBox struct {
	t      *testing.T
	dir    string
	config string
	store  string
	env    []string
	secret []string             // values that no output and no file may contain
	exe    string               // of the daemon; empty: nightferry
	as     *syscall.SysProcAttr // of the daemon; nil: this account

	cmd     *exec.Cmd
	log     *bytes.Buffer
	ended   chan struct{}
	metrics string
}

func newCoreBox(t *testing.T) *coreBox { return newCoreBoxOver(t, s3test.S3(t)) }

func newCoreBoxOver(t *testing.T, b s3test.Bucket) *coreBox {
	dir, err := os.MkdirTemp("", "core") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	x := &coreBox{t: t, dir: dir, store: b.URL("fleet"), config: filepath.Join(dir, "nightferry.yaml"), env: append(append(os.Environ(), b.Env()...), "NIGHTFERRY_STATE="+filepath.Join(dir, "cli-state"), envConfig+"="+filepath.Join(dir, configName))}
	x.must("core", "init", dir, "--store", b.URL("fleet"), "--host", "localhost", "--create-repository")
	return x
}

// try runs the program, with stdin if it is not empty, and checks what no
// output may hold.
func (x *coreBox) try(stdin string, args ...string) (out, complaint string, code int) {
	x.t.Helper()
	cmd := exec.Command("nightferry", args...)
	cmd.Dir, cmd.Env = x.dir, x.env
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			x.t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	for _, s := range x.secret {
		if strings.Contains(o.String()+e.String(), s) {
			x.t.Errorf("%v tells a secret", args)
		}
	}
	return o.String(), e.String(), code
}

func (x *coreBox) must(args ...string) string {
	x.t.Helper()
	out, complaint, code := x.try("", args...)
	if code != 0 {
		x.t.Fatalf("%v: exit code %d\n%s%s", args, code, out, complaint)
	}
	return out
}

func (x *coreBox) fails(want int, args ...string) string {
	x.t.Helper()
	out, complaint, code := x.try("", args...)
	if code != want {
		x.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, out, complaint)
	}
	return complaint
}

// table is must for an answer that a person reads: no line is wider than a
// terminal.
func (x *coreBox) table(args ...string) string {
	x.t.Helper()
	out := x.must(args...)
	for l := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 {
			x.t.Errorf("%v: %d columns: %s", args, n, l)
		}
	}
	x.t.Logf("%v\n%s", args, out)
	return out
}

// lines is must with --json: each line is an object with an event.
func (x *coreBox) lines(args ...string) (all []map[string]any) {
	x.t.Helper()
	for l := range strings.Lines(x.must(append(args, "--json")...)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(l), &o); err != nil || o["event"] == nil {
			x.t.Errorf("%v: %q: %v", args, l, err)
		}
		all = append(all, o)
	}
	return all
}

// edit changes the configuration.
func (x *coreBox) edit(pairs ...string) {
	x.t.Helper()
	b, err := os.ReadFile(x.config)
	if err != nil {
		x.t.Fatal(err)
	}
	s := string(b)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			x.t.Fatalf("%q is not in the configuration", pairs[i])
		}
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	if err := os.WriteFile(x.config, []byte(s), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// start runs the daemon until it serves.
func (x *coreBox) start() {
	x.t.Helper()
	x.cmd = exec.Command(cmp.Or(x.exe, "nightferry"), "core", "run", "--json")
	x.cmd.Dir, x.cmd.Env, x.cmd.SysProcAttr = x.dir, x.env, x.as
	pipe, err := x.cmd.StderrPipe()
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	cmd := x.cmd
	x.t.Cleanup(func() { _ = cmd.Process.Kill() })
	serves := make(chan string, 1)
	x.log, x.ended = &bytes.Buffer{}, make(chan struct{})
	log, ended := x.log, x.ended
	go func() {
		defer close(ended)
		s := bufio.NewScanner(pipe)
		for s.Scan() {
			log.Write(append(s.Bytes(), '\n'))
			var l struct{ Msg, Metrics string }
			if json.Unmarshal(s.Bytes(), &l) == nil && l.Msg == "the Core serves" {
				serves <- l.Metrics
			}
		}
	}()
	select {
	case x.metrics = <-serves:
	case <-x.ended:
		x.t.Fatalf("the Core ended: %v\n%s", x.cmd.Wait(), x.log)
	case <-time.After(time.Minute):
		x.t.Fatal("the Core does not serve")
	}
}

// stop ends the daemon as a service manager does.
func (x *coreBox) stop() string {
	x.t.Helper()
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		x.t.Fatal(err)
	}
	<-x.ended
	if err := x.cmd.Wait(); err != nil {
		x.t.Errorf("SIGTERM: %v\n%s", err, x.log)
	}
	for l := range strings.Lines(x.log.String()) {
		if !json.Valid([]byte(l)) && !strings.HasPrefix(l, "nightferry: ") {
			x.t.Errorf("the log holds %q", l)
		}
	}
	return x.log.String()
}

func (x *coreBox) http(path string) (int, string) {
	x.t.Helper()
	res, err := http.Get("http://" + x.metrics + path)
	if err != nil {
		x.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (x *coreBox) mode(name string, want fs.FileMode) {
	x.t.Helper()
	info, err := os.Lstat(filepath.Join(x.dir, name))
	if err != nil {
		x.t.Fatal(err)
	}
	if info.Mode() != want {
		x.t.Errorf("%s: mode %v, want %v", name, info.Mode(), want)
	}
}

// unwrapped joins the lines into which a row was wrapped.
func unwrapped(text string) string { return regexp.MustCompile(`\n +`).ReplaceAllString(text, " ") }

// contains expects each pattern in a text, also where the text was wrapped.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	joined := unwrapped(text)
	for _, p := range parts {
		if re := regexp.MustCompile(p); !re.MatchString(text) && !re.MatchString(joined) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}
