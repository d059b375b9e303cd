//go:build linux

package gates

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// systemctl replaces systemd's. It knows the commands that the agent runs; enable starts the unit's program.
const systemctl = `#!/bin/sh
echo "$@" >>"$FAKE/said"
case "$1" in
daemon-reload) ;;
enable)
	line=$(sed -n 's/^ExecStart=//p' "$FAKE/units/$3")
	eval "exec $line" >>"$FAKE/log" 2>&1 </dev/null &
	echo $! >"$FAKE/pid" ;;
*) exit 1 ;;
esac
`

// TestWaveJoinsUnattended checks that one command creates the tokens of a wave, and that one line on each new server
// enrolls it and brings its content. A mount namespace replaces the folder of systemd's units.
func TestWaveJoinsUnattended(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may install a service")
	}
	if err := exec.Command("unshare", "-m", "true").Run(); err != nil {
		t.Skipf("this system forbids a mount namespace: %v", err)
	}
	w := newWorld(t, "localhost")
	w.write("package", "a.bin", strings.Repeat("content", 1000))
	w.publish("package")
	tokens := filepath.Join(w.dir, "tokens")
	w.must("site", "token", "--wave", "2", "--domain", "alpha", "--out", tokens)
	issued, err := filepath.Glob(filepath.Join(tokens, "*.token"))
	if err != nil || len(issued) != 2 {
		t.Fatalf("%v, %v", issued, err)
	}
	for _, file := range issued {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
		site := strings.TrimSuffix(filepath.Base(file), ".token")
		w.hide("token of "+site, w.read(file))
		s := newServer(t, w, site)
		file := s.receive(file)
		out, err := s.install(file)
		if err != nil {
			t.Fatalf("%s: %v\n%s", site, err, out)
		}
		if !strings.Contains(out, "this server is site "+site+" of domain alpha") || !strings.Contains(out, "is installed and started") {
			t.Errorf("%s: %s", site, out)
		}
		if said := w.read(filepath.Join(s.fake, "said")); said != "daemon-reload\nenable --now nightferry-agent.service" {
			t.Errorf("%s: systemctl was told %q", site, said)
		}
		// Running the script again does no harm: the server has an identity already, or the agent has locked its
		// folder.
		if out, err := s.install(file); exitCode(err) != 4 && exitCode(err) != 9 {
			t.Errorf("%s, a second time: %v\n%s", site, err, out)
		}
		w.until(site+" to be current", func() bool {
			return strings.Contains(w.must("sites", "--site", site), "current") || site == "paris" // paris holds images, and none are published
		})
		if b, err := os.ReadFile(filepath.Join(s.allow, "bari", "a.bin")); site == "bari" && (err != nil || len(b) != 7000) {
			t.Errorf("%d bytes arrived, %v", len(b), err)
		}
	}
	// A later wave omits sites that are enrolled.
	again := filepath.Join(w.dir, "again")
	w.must("site", "token", "--wave", "20", "--domain", "alpha", "--out", again)
	for _, file := range issued {
		if _, err := os.Lstat(filepath.Join(again, filepath.Base(file))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was issued again: %v", filepath.Base(file), err)
		}
	}
}

// server is a newly built machine.
type server struct {
	w          *world
	fake, bins string
	state      string
	allow      string
}

// receive copies the token to the server, as an operator would.
func (s *server) receive(token string) string {
	copied := filepath.Join(filepath.Dir(s.state), filepath.Base(token))
	if err := os.WriteFile(copied, []byte(s.w.read(token)), 0o600); err != nil {
		s.w.t.Fatal(err)
	}
	return copied
}

func newServer(t *testing.T, w *world, site string) *server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), site)
	s := &server{w: w, fake: dir, bins: filepath.Join(dir, "bin"), state: filepath.Join(dir, "state"), allow: filepath.Join(w.dir, "targets")}
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "units"), 0o755), os.MkdirAll(s.bins, 0o755), os.MkdirAll(s.allow, 0o755),
		os.WriteFile(filepath.Join(s.bins, "systemctl"), []byte(systemctl), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return // nothing was started
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGTERM)
		}
		if err != nil {
			t.Error(err)
		}
		w.until("the agent's end", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	})
	return s
}

// zombie reports whether a process has ended but has not been reaped.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && bytes.Contains(b, []byte(") Z "))
}

// install runs the line that the build script of a server runs.
func (s *server) install(token string) (string, error) {
	cmd := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$FAKE/units" /etc/systemd/system && exec "$@"`, "sh",
		filepath.Join(built.bin, "nightferry-agent"), "install", "--token-file", token, "--allow", s.allow, "--state", s.state)
	cmd.Env = []string{"PATH=" + s.bins + ":" + os.Getenv("PATH"), "FAKE=" + s.fake}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
