//go:build wine

package wintest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/s3test"
)

// Environment variables set by scripts/wine.
const (
	envWine  = "NIGHTFERRY_WINE"       // the program that runs Windows programs
	envFlags = "NIGHTFERRY_WINE_FLAGS" // go build flags for these programs
)

// patience bounds every wait; a busy machine runs Wine slowly.
const patience = 3 * time.Minute

// built holds the folder of the programs. It is a package variable because
// only TestMain can build them once, and remove them after the last test.
var built struct{ dir, wine string }

func TestMain(m *testing.M) {
	code, err := build(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(run func() int) (code int, err error) {
	if built.wine = os.Getenv(envWine); built.wine == "" {
		return 1, errors.New("run these tests with scripts/wine --fleet")
	}
	if built.dir, err = privateTemp("wintest-bin-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built.dir)) }()
	for system, flags := range map[string][]string{"linux": nil, "windows": strings.Fields(os.Getenv(envFlags))} {
		args := append(append([]string{"build"}, flags...), "-o", built.dir+string(filepath.Separator), "nightferry/cmd/nightferry", "nightferry/cmd/nightferry-agent")
		cmd := exec.CommandContext(context.Background(), "go", args...)
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build for %s: %w\n%s", system, err, out)
		}
	}
	return run(), nil
}

// system is the operating system of a program.
type system int

const (
	linux system = iota
	windows
)

// path returns a file's path on that system. Wine shows the root as drive Z.
func (s system) path(p string) string {
	if s == windows {
		return "Z:" + strings.ReplaceAll(p, "/", `\`)
	}
	return p
}

// here is the inverse of path.
func (s system) here(p string) string {
	if s == windows {
		p = strings.ReplaceAll(strings.TrimPrefix(p, "Z:"), `\`, "/")
	}
	return p
}

func (s system) command(program string, args ...string) *exec.Cmd {
	if s == windows {
		return exec.Command(built.wine, append([]string{filepath.Join(built.dir, program+".exe")}, args...)...)
	}
	return exec.Command(filepath.Join(built.dir, program), args...)
}

// fleet is a Core with its sites, and the folder that holds all of them.
type fleet struct {
	t      *testing.T
	bucket s3test.Bucket
	dir    string
	on     system // the Core's
	port   string
	core   *daemon
	env    []string
	serial int
}

// privateTemp makes a folder that only this account can change: under Wine, /tmp is open to everyone. Its path is
// short, for sockets.
func privateTemp(prefix string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(cache, prefix)
}

// newFleet makes a Core and starts it. sites maps the site names in its
// configuration to their systems.
func newFleet(t *testing.T, on system, sites map[string]system) *fleet {
	t.Helper()
	b := s3test.S3(t)
	dir, err := privateTemp("wintest-")
	f := &fleet{t: t, bucket: b, dir: dir, on: on}
	f.try(err)
	t.Cleanup(func() { f.try(os.RemoveAll(dir)) })
	f.env = append(append(os.Environ(), b.Env()...), "NIGHTFERRY_STATE="+on.path(f.in("cli")))
	f.cli("core", "init", on.path(f.in("core")), "--store", b.URL("fleet"), "--host", "127.0.0.1", "--create-repository")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.try(err)
	_, f.port, err = net.SplitHostPort(l.Addr().String())
	f.try(errors.Join(err, l.Close()))
	var lines strings.Builder
	for name, s := range sites {
		f.try(os.MkdirAll(f.in("sites", name), 0o755))
		fmt.Fprintf(&lines, "\n  %s: {domain: corp, region: emea, zone: Europe/Berlin, rate: 8Mbit, targets: {package: '%s'}}", name, s.path(f.in("sites", name, "package")))
	}
	f.configure("0.0.0.0:4222", "127.0.0.1:"+f.port, "tls://127.0.0.1:4222", "tls://127.0.0.1:"+f.port, "0.0.0.0:443", "off",
		"\n  - 'wss://127.0.0.1:443'", "", "127.0.0.1:9469", "off", "sites: {}", "sites:"+lines.String())
	f.cli("core", "check")
	f.serve()
	return f
}

func (f *fleet) try(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// in returns the path of a file of the fleet.
func (f *fleet) in(parts ...string) string {
	return filepath.Join(append([]string{f.dir}, parts...)...)
}

// configure changes the Core's configuration file.
func (f *fleet) configure(pairs ...string) {
	f.t.Helper()
	path := f.in("core", "nightferry.yaml")
	b, err := os.ReadFile(path)
	f.try(err)
	text := string(b)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			f.t.Fatalf("%q is not in the configuration:\n%s", pairs[i], text)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	f.try(os.WriteFile(path, []byte(text), 0o644))
}

// serve starts the Core.
func (f *fleet) serve() {
	f.t.Helper()
	f.core = f.start(f.on, "nightferry", "core", "run", "--json")
	f.core.says("the Core serves")
}

// output returns a file for a program's output. A pipe would not end with the
// program, because Wine's own processes inherit it and keep running.
func (f *fleet) output(name string) *os.File {
	f.t.Helper()
	f.serial++
	out, err := os.Create(f.in(fmt.Sprintf("%03d-%s.out", f.serial, name)))
	f.try(err)
	return out
}

// tell runs a program and returns all of its output.
func (f *fleet) tell(s system, stdin, program string, args ...string) (said string, code int) {
	f.t.Helper()
	out, complaint, code := f.run(s, stdin, program, args...)
	return out + complaint, code
}

// run runs a program to its end.
func (f *fleet) run(s system, stdin, program string, args ...string) (out, complaint string, code int) {
	f.t.Helper()
	cmd := f.prepare(s, program, args...)
	file, second := f.output(program), f.output(program)
	defer file.Close()
	defer second.Close()
	cmd.Stdout, cmd.Stderr = file, second
	if stdin != "" {
		in := f.in("stdin")
		f.try(os.WriteFile(in, []byte(stdin), 0o600))
		r, err := os.Open(in)
		f.try(err)
		defer r.Close()
		cmd.Stdin = r
	}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			f.t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	return text(file.Name()), text(second.Name()), code
}

// text returns a file's content with Linux line ends.
func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func (f *fleet) prepare(s system, program string, args ...string) *exec.Cmd {
	cmd := s.command(program, args...)
	cmd.Dir = f.dir
	cmd.Env = append(f.env, "NIGHTFERRY_CONFIG="+f.on.path(f.in("core", "nightferry.yaml")))
	return cmd
}

// cli runs nightferry on the Core's system, and returns its standard output.
func (f *fleet) cli(args ...string) string {
	f.t.Helper()
	out, complaint, code := f.run(f.on, "", "nightferry", args...)
	if code != 0 {
		f.t.Fatalf("%v: exit code %d\n%s%s", args, code, out, complaint)
	}
	if complaint != "" {
		f.t.Logf("%v: %s", args, complaint)
	}
	return out
}

// daemon is a long-running program.
type daemon struct {
	f    *fleet
	name string
	cmd  *exec.Cmd
	log  string // file
	done chan struct{}
	err  error // set before done closes
}

func (f *fleet) start(s system, program string, args ...string) *daemon {
	f.t.Helper()
	d := &daemon{f: f, name: program, cmd: f.prepare(s, program, args...), done: make(chan struct{})}
	out := f.output(program)
	defer out.Close()
	d.log, d.cmd.Stdout, d.cmd.Stderr = out.Name(), out, out
	f.try(d.cmd.Start())
	go func() { defer close(d.done); d.err = d.cmd.Wait() }()
	f.t.Cleanup(func() {
		d.kill()
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", d.name, d.text())
		}
	})
	return d
}

// kill sends SIGKILL, which Windows programs cannot notice either.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// stop stops it as Ctrl-C does. The test fails if it exits with an error.
func (d *daemon) stop() {
	d.f.t.Helper()
	d.f.try(d.cmd.Process.Signal(os.Interrupt))
	select {
	case <-d.done:
	case <-time.After(patience):
		d.f.t.Fatalf("%s does not stop\n%s", d.name, d.text())
	}
	if d.err != nil {
		d.f.t.Errorf("%s stops with %v\n%s", d.name, d.err, d.text())
	}
}

func (d *daemon) text() string { return text(d.log) }

// says waits until the text is in its output.
func (d *daemon) says(what string) {
	d.f.t.Helper()
	d.f.until(d.name+": "+what, func() bool {
		select {
		case <-d.done:
			d.f.t.Fatalf("%s has ended: %v\n%s", d.name, d.err, d.text())
		default:
		}
		return strings.Contains(d.text(), what)
	})
}

// until waits until ok returns true.
func (f *fleet) until(what string, ok func() bool) {
	f.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			f.t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}
