package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightferry/internal/bus"
)

// keeper is a service account that exists only in these tests.
const keeper = 54321

func TestMain(m *testing.M) {
	if os.Getenv("NIGHTFERRY_AGENT_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// siteState is a state directory of an enrolled site that belongs to a service account.
type siteState struct {
	t     *testing.T
	state string
	uid   uint32
}

func newService(t *testing.T) *siteState {
	t.Helper()
	s := &siteState{t: t, uid: uint32(os.Geteuid())}
	if s.uid == 0 {
		s.uid = keeper
	}
	dir := t.TempDir()
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		s.try(os.Chmod(p, 0o755))
	}
	s.state = filepath.Join(dir, "state")
	s.try(os.Mkdir(s.state, 0o700))
	seed, _, err := bus.NewIdentity()
	s.try(err)
	site, err := json.Marshal(map[string]any{"domain": "corp", "site": "berlin", "region": "emea", "core": []string{"tls://127.0.0.1:1"},
		"repo": hex.EncodeToString(make([]byte, 16)), "store": "http://127.0.0.1:1", "allow": []string{filepath.Join(dir, "depot")}})
	s.try(err)
	for name, b := range map[string][]byte{"site.json": site, "identity.seed": seed, "user.jwt": []byte("none")} {
		s.try(os.WriteFile(filepath.Join(s.state, name), b, 0o600))
	}
	s.own()
	return s
}

func (s *siteState) try(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// own gives the state directory and its files to the account.
func (s *siteState) own() {
	s.try(filepath.WalkDir(s.state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(s.uid), int(s.uid))
	}))
}

// command is nightferry-agent as the account of the test.
func (s *siteState) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), os.Args[0], append(args, "--state", s.state)...)
	cmd.Env = append(os.Environ(), "NIGHTFERRY_AGENT_MAIN=1")
	return cmd
}

func (s *siteState) run(code int, want string, args ...string) {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); !strings.Contains(got, want) || (err == nil) != (code == 0) || err != nil && err.(*exec.ExitError).ExitCode() != code {
		s.t.Errorf("%v: %v, want code %d and %q:\n%s", args, err, code, want, out)
	}
}

// foreign returns the files of the state directory that the account does not own.
func (s *siteState) foreign() (list []string) {
	s.try(filepath.WalkDir(s.state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != s.uid {
			list = append(list, path)
		}
		return err
	}))
	return list
}

// TestRootStopsServiceAccount: root uses the kill switch of an agent that has an account of its own. The account can
// read and remove each file that this leaves, and the running agent confirms the stop.
func TestRootStopsServiceAccount(t *testing.T) {
	s := newService(t)
	s.run(0, "no agent runs", "halt", "--reason", "the disk fails")
	s.run(0, "the disk fails", "status")
	s.run(0, "site berlin of domain corp", "status")
	s.run(0, "is lifted", "resume")
	s.run(14, "no halt order was given on this site", "resume")
	agent := s.command("run")
	exe, err := os.ReadFile(os.Args[0])
	s.try(err)
	agent.Path = filepath.Join(filepath.Dir(s.state), "nightferry-agent") // the account cannot reach the test's own
	s.try(os.WriteFile(agent.Path, exe, 0o755))
	if os.Geteuid() == 0 {
		agent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.uid}}
	}
	log, err := agent.StderrPipe()
	s.try(err)
	s.try(agent.Start())
	begun := make([]byte, 1)
	_, err = log.Read(begun) // its first line comes when it serves
	s.try(err)
	s.run(0, "stopped at", "halt", "--reason", "again")
	s.run(0, "stopped at", "status")
	s.run(0, "is lifted", "resume")
	s.try(agent.Process.Signal(syscall.SIGTERM))
	_ = agent.Wait() // its own error is not of interest
	if list := s.foreign(); len(list) > 0 {
		t.Errorf("these files are not the account's: %q", list)
	}
	if os.Geteuid() == 0 {
		s.run(3, fmt.Sprint(keeper), "check")
		s.run(7, "another account can change it", "run")
	}
}

// TestRootTrustsNothingPlanted: an account plants files in its state directory, and root halts the site all the same.
func TestRootTrustsNothingPlanted(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{os.WriteFile(secret, []byte("topsecret"), 0o600), os.Chmod(secret, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for what, plant := range map[string]func(name string) error{
		"link":   func(name string) error { return os.Symlink(secret, name) },
		"pipe":   func(name string) error { return syscall.Mkfifo(name, 0o666) },
		"folder": func(name string) error { return os.Mkdir(name, 0o700) },
		"large": func(name string) error {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(name, 1<<40)
		},
		"second name": func(name string) error { return os.Link(secret, name) },
	} {
		for _, name := range []string{"halted.json", "stopped.json", "lock", "agent.db", "site.json"} {
			t.Run(what+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newService(t)
				path := filepath.Join(s.state, name)
				_ = os.Remove(path) // most are not there
				s.try(plant(path))
				if what == "second name" && os.Geteuid() == 0 {
					s.try(os.Lchown(s.state, int(s.uid), int(s.uid)))
				} else {
					s.try(os.Lchown(path, int(s.uid), int(s.uid)))
				}
				for _, verb := range []string{"halt", "status", "resume"} {
					cmd := s.command(verb)
					late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
					out, _ := cmd.CombinedOutput()
					if !late.Stop() {
						t.Errorf("%s waits for ever", verb)
					}
					if strings.Contains(string(out), "topsecret") {
						t.Errorf("%s: %s", verb, out)
					}
				}
				if b, err := os.ReadFile(secret); err != nil || string(b) != "topsecret" {
					t.Errorf("root's file holds %q, %v", b, err)
				}
			})
		}
	}
}
