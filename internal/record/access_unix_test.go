//go:build unix

package record

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/clock"
)

// groups returns two groups that this account may assign to files; root may
// assign any.
func groups(t *testing.T) (string, string) {
	t.Helper()
	if os.Geteuid() == 0 {
		return "54321", "54322"
	}
	own := strconv.Itoa(os.Getegid())
	return own, own
}

func mode(t *testing.T, name string) (fs.FileMode, uint32) {
	t.Helper()
	info, err := os.Lstat(name)
	must(t, err)
	return info.Mode() & (fs.ModePerm | fs.ModeSetgid), info.Sys().(*syscall.Stat_t).Gid
}

func TestEachDomainHasItsReaders(t *testing.T) {
	old := syscall.Umask(0o077) // the strictest: it must have no effect
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "logs")
	for d := filepath.Dir(dir); d != os.TempDir() && strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755)) // so that other accounts can reach the logs
	}
	l, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	a, b := groups(t)
	domains := map[string]Access{"apac": {Group: a}, "emea": {Group: b}, "core": {}}
	changed, err := l.Prepare(domains)
	must(t, err)
	same(t, "changed", changed, map[string]string{})
	write(t, l, at("apac", "osaka", day, 1))
	write(t, l, at("", "", day, 2))
	gid, err := strconv.Atoi(a)
	must(t, err)
	check := func() {
		t.Helper()
		must(t, l.walkTree("apac", func(name string, folder bool) error {
			m, g := mode(t, filepath.Join(dir, name))
			if want := map[bool]fs.FileMode{true: 0o750 | fs.ModeSetgid, false: 0o640}[folder]; m != want || int(g) != gid {
				t.Errorf("%s: mode %v group %d, want %v group %d", name, m, g, want, gid)
			}
			return nil
		}))
	}
	check()
	coreLog := filepath.Join(dir, filepath.FromSlash(at("", "", day, 2).Path()))
	if m, _ := mode(t, coreLog); m != 0o600 {
		t.Errorf("the Core's log has mode %v", m)
	}
	if m, _ := mode(t, dir); m != 0o711 {
		t.Errorf("the folder of all logs has mode %v", m)
	}

	site := filepath.Join(dir, "apac", "osaka")
	must(t, os.Chmod(site, 0o755))
	changed, err = l.Prepare(domains)
	must(t, err)
	if len(changed) != 1 || !strings.Contains(changed["apac"], site) || !strings.Contains(changed["apac"], "mode") {
		t.Fatalf("a folder whose mode was changed by hand: %v", changed)
	}
	must(t, os.Chmod(filepath.Join(dir, filepath.FromSlash(at("apac", "osaka", day, 1).Path())), 0o644))
	must(t, l.Repair("apac", domains["apac"]))
	check()
	if changed, err := l.Prepare(domains); err != nil || len(changed) != 0 {
		t.Fatalf("after the repair: %v, %v", changed, err)
	}
	if _, err := l.Prepare(map[string]Access{"amer": {Group: "no such group"}}); err == nil {
		t.Fatal("a group that does not exist was accepted")
	}

	if os.Geteuid() != 0 {
		return // only root can change to another account
	}
	if changed, _ := l.Prepare(map[string]Access{"apac": {Group: b}}); !strings.Contains(changed["apac"], "group") {
		t.Fatalf("a folder of another group: %v", changed)
	}
	cat := func(group string, path string) error {
		n, err := strconv.ParseUint(group, 10, 32)
		must(t, err)
		cmd := exec.CommandContext(t.Context(), "cat", path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54300, Gid: uint32(n)}}
		return cmd.Run()
	}
	log := filepath.Join(dir, filepath.FromSlash(at("apac", "osaka", day, 1).Path()))
	if err := cat(a, log); err != nil {
		t.Errorf("a reader of the domain cannot read its log: %v", err)
	}
	if err := cat(b, log); err == nil {
		t.Error("a reader of another domain can read the log")
	}
	if err := cat(a, coreLog); err == nil {
		t.Error("a domain's reader can read the Core's log")
	}
}

func TestPurgeFollowsNoLink(t *testing.T) {
	l := newLogs(t, nil)
	outside := t.TempDir()
	precious := filepath.Join(outside, at("", "", day, 1).Run+suffix)
	must(t, os.WriteFile(precious, []byte("x"), 0o600))
	old := day.AddDate(0, 0, -40)
	write(t, l, at("apac", "osaka", old, 1))
	channel := filepath.Join(l.root.Dir(), "apac", "osaka", "package")
	must(t, os.Symlink(outside, filepath.Join(channel, "2026-01-01")))
	must(t, os.Symlink(outside, filepath.Join(l.root.Dir(), "apac", "tokyo")))
	link := filepath.Join(channel, old.Format(dayLayout), at("", "", day, 9).Run+suffix)
	must(t, os.Symlink(precious, link))
	p, err := l.Purge(clock.CalendarAt(day), 24*60*60*1e9)
	must(t, err)
	if p.Files != 1 {
		t.Fatalf("purged %+v", p)
	}
	if _, err := os.Lstat(precious); err != nil {
		t.Fatal("a file outside the logs was removed")
	}
}
