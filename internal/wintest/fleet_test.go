//go:build wine

package wintest

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWindowsSite: a Windows agent of a Linux Core enrols, converges, is
// killed during a transfer, resumes the same run, and is finally revoked.
func TestWindowsSite(t *testing.T) {
	f := newFleet(t, linux, map[string]system{"berlin": windows})
	f.first()
	f.join("berlin", windows)
	berlin := f.agent("berlin", windows)
	f.publish(1)
	f.converged(1, "berlin")

	f.second()
	f.publish(2)
	f.until("the transfer", func() bool {
		p := f.site("berlin").Progress
		return p != nil && p.BytesDone > 0 && p.BytesDone < p.BytesTotal
	})
	berlin.kill()
	berlin = f.agent("berlin", windows)
	berlin.says("continues a run of release 2")
	f.converged(2, "berlin")
	if out, code := f.tell(windows, "", "nightferry-agent", "status", "--state", windows.path(f.in("agents", "berlin"))); code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "package: holds release 2 in Z:") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	berlin.stop()
	berlin = f.agent("berlin", windows)
	berlin.says("connected to the Core")
	f.cli("site", "revoke", "berlin", "--reason", "the test ends")
	berlin.says("the Core is away")
	f.core.stop()
}

// TestWindowsCore: a Windows Core, controlled through its named pipe,
// publishes from a Windows folder to a Windows and a Linux site, is killed,
// and serves both again.
func TestWindowsCore(t *testing.T) {
	sites := map[string]system{"berlin": windows, "lisbon": linux}
	f := newFleet(t, windows, sites)
	f.first()
	for name, s := range sites {
		f.join(name, s)
		f.agent(name, s)
	}
	f.publish(1)
	f.converged(1, "berlin", "lisbon")

	if out, code := f.tell(windows, "a secret\n", "nightferry", "secret", "set", "smtp"); code != 0 {
		t.Errorf("secret set: exit code %d\n%s", code, out)
	}
	f.configure("keep: 10", "keeep: 10")
	if out, code := f.tell(windows, "", "nightferry", "core", "reload"); code != 15 || !strings.Contains(out, "keeep") {
		t.Errorf("a bad file: exit code %d\n%s", code, out)
	}
	f.configure("keeep: 10", "keep: 9")
	f.cli("core", "reload")
	if out := f.cli("audit"); !strings.Contains(out, "vault set") || strings.Contains(out, "a secret") {
		t.Errorf("the audit says:\n%s", out)
	}

	f.second()
	f.core.kill()
	f.serve()
	f.publish(2)
	f.converged(2, "berlin", "lisbon")
	if out := f.cli("where", "package/moved/d1.inf"); strings.Count(out, "\n") < 2 || strings.Contains(out, "nothing yet") {
		t.Errorf("where:\n%s", out)
	}
	f.core.stop()
}

// content writes files into the channel's source.
func (f *fleet) content(files map[string][]byte) {
	f.t.Helper()
	for name, b := range files {
		path := f.source(name)
		f.try(os.MkdirAll(filepath.Dir(path), 0o755))
		f.try(os.WriteFile(path, b, 0o644))
	}
}

func (f *fleet) source(name string) string {
	return f.in("core", "content", "package", filepath.FromSlash(name))
}

// first writes the content of release 1.
func (f *fleet) first() {
	f.t.Helper()
	files := map[string][]byte{"empty": nil, "Setup.EXE": noise(1, 300<<10), "swap": []byte("a file"), "ünïcode ☃.txt": []byte("names")}
	for i := range 60 {
		files["drivers/d"+strconv.Itoa(i)+".inf"] = []byte("driver " + strconv.Itoa(i))
	}
	f.content(files)
}

// second changes it to release 2: some 10 MB more, and every kind of change.
func (f *fleet) second() {
	f.t.Helper()
	f.try(os.Remove(f.source("swap")))
	f.try(os.Remove(f.source("drivers/d0.inf")))
	f.try(os.MkdirAll(f.source("moved"), 0o755))
	f.try(os.Rename(f.source("drivers/d1.inf"), f.source("moved/d1.inf")))
	files := map[string][]byte{"swap/now a folder": []byte("b"), "drivers/d2.inf": []byte("changed"), "Setup.EXE": noise(2, 400<<10)}
	for i := range 20 {
		files["big/"+strconv.Itoa(i)+".bin"] = noise(uint64(10+i), 500<<10)
	}
	f.content(files)
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b) // never fails
	return b
}

func (f *fleet) publish(number uint64) {
	f.t.Helper()
	if out := f.cli("publish", "package"); !strings.Contains(out, "release "+strconv.FormatUint(number, 10)+" published") {
		f.t.Fatal(out)
	}
}

// join enrols a site with a token, which is invalid afterwards.
func (f *fleet) join(name string, s system) {
	f.t.Helper()
	f.cli("site", "token", name, "--out", f.on.path(f.in(name+".token")))
	enroll := func(state string) (string, int) {
		return f.tell(s, "", "nightferry-agent", "enroll", "--token-file", s.path(f.in(name+".token")), "--allow", s.path(f.in("sites", name)), "--state", s.path(state))
	}
	if out, code := enroll(f.in("agents", name)); code != 0 {
		f.t.Fatalf("enroll %s: exit code %d\n%s", name, code, out)
	}
	if out, code := enroll(f.in("agents", "twice")); code == 0 {
		f.t.Errorf("the token of %s is good twice:\n%s", name, out)
	}
	f.try(os.RemoveAll(f.in("agents", "twice")))
}

func (f *fleet) agent(name string, s system) *daemon {
	return f.start(s, "nightferry-agent", "run", "--json", "--state", s.path(f.in("agents", name)))
}

// channel is the Core's status of a site's only channel.
type channel struct {
	Holds    uint64
	State    string
	Run      string
	Progress *struct {
		BytesDone  int64 `json:"bytes_done"`
		BytesTotal int64 `json:"bytes_total"`
	}
}

func (f *fleet) site(name string) channel {
	f.t.Helper()
	var s struct{ Channels []channel }
	out := f.cli("sites", "--site", name, "--json")
	f.try(json.Unmarshal([]byte(out), &s))
	if len(s.Channels) != 1 {
		f.t.Fatalf("%s", out)
	}
	return s.Channels[0]
}

// converged waits until the Core reports that the sites hold a release. Then
// it checks this independently, by comparing the folders and the run's log.
func (f *fleet) converged(number uint64, names ...string) {
	f.t.Helper()
	want := f.tree(f.source(""))
	for _, name := range names {
		var c channel
		f.until(name+" to be current", func() bool {
			c = f.site(name)
			return c.State == "current" && c.Holds == number
		})
		if d := cmp.Diff(want, f.tree(f.in("sites", name, "package"))); d != "" {
			f.t.Errorf("%s differs from release %d (-want +got):\n%s", name, number, d)
		}
		f.record(name, c.Run, want)
	}
}

// tree returns the files below a folder.
func (f *fleet) tree(dir string) map[string][]byte {
	f.t.Helper()
	files := map[string][]byte{}
	f.try(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, ".nightferry") {
			return fs.SkipDir
		}
		if d.IsDir() {
			files[name+"/"] = nil
			return nil
		}
		b, err := os.ReadFile(path)
		files[name] = bytes.Clone(b)
		return err
	}))
	return files
}

// record checks the record of a run: one line per file, and a log file with
// one line per processed file.
func (f *fleet) record(site, id string, want map[string][]byte) {
	f.t.Helper()
	var run struct {
		Totals struct{ Added, Changed, Deleted, Moved, Repaired int }
	}
	seen := map[string]int{}
	for l := range strings.Lines(f.cli("run", "show", id, "--all-files", "--json")) {
		var o struct{ Event, Path string }
		f.try(json.Unmarshal([]byte(l), &o))
		switch o.Event {
		case "run":
			f.try(json.Unmarshal([]byte(l), &run))
		case "file":
			seen[o.Path]++
		}
	}
	for name := range want {
		if n := seen[strings.TrimSuffix(name, "/")]; n != 1 && !strings.HasSuffix(name, "/") {
			f.t.Errorf("run %s of %s tells of %s %d times", id, site, name, n)
		}
	}
	for name, n := range seen {
		if n > 1 {
			f.t.Errorf("run %s of %s tells of %s %d times", id, site, name, n)
		}
	}
	var log string
	f.until("the log of run "+id, func() bool { // it is written a moment after the run's end
		log = strings.TrimSpace(f.cli("logs", "--paths", "--run", id))
		return log != ""
	})
	b, err := os.ReadFile(f.on.here(log))
	f.try(err)
	t := run.Totals
	if acted, lines := t.Added+t.Changed+t.Deleted+t.Moved+t.Repaired, strings.Count(string(b), "\n")-2; acted != lines || acted == 0 {
		f.t.Errorf("run %s of %s: the ledger counts %d files, the log has %d:\n%s", id, site, acted, lines, b)
	}
}

// TestWindowsService installs a site on a Windows server as a service with
// one command, and removes it with another. Under Wine 8, a Go program that
// waits for the service manager does not continue, so the test cannot observe
// the running service.
func TestWindowsService(t *testing.T) {
	f := newFleet(t, linux, map[string]system{"berlin": windows})
	f.first()
	f.publish(1)
	f.cli("site", "token", "berlin", "--out", f.in("berlin.token"))
	state := windows.path(f.in("agents", "berlin"))
	install := func(more ...string) (string, int) {
		return f.tell(windows, "", "nightferry-agent", append([]string{"install", "--state", state}, more...)...)
	}
	uninstall := func() (string, int) { return f.tell(windows, "", "nightferry-agent", "uninstall") }
	t.Cleanup(func() { _, _ = uninstall() }) // of a test that failed
	if out, code := install("--token-file", windows.path(f.in("berlin.token")), "--allow", windows.path(f.in("sites", "berlin"))); code != 0 {
		t.Fatalf("install: exit code %d\n%s", code, out)
	}
	if out, code := install(); code != 4 {
		t.Errorf("installed twice: exit code %d\n%s", code, out)
	}
	if out, code := uninstall(); code != 0 {
		t.Fatalf("uninstall: exit code %d\n%s", code, out)
	}
	if out, code := uninstall(); code != 14 {
		t.Errorf("uninstalled twice: exit code %d\n%s", code, out)
	}
	// An agent refuses to run beside another, so the service has ended.
	f.agent("berlin", windows).says("connected to the Core")
	f.converged(1, "berlin")
}
