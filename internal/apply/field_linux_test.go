package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
	"nightferry/internal/verify"
)

// fileSystem is a file system used for targets in the field.
type fileSystem struct {
	name  string
	make  []string // command that makes it in a file; empty: none is needed
	mount []string // command that mounts that file; empty: use the folder as it is
	block bool     // the file must be a block device
}

func fileSystems() []fileSystem {
	return []fileSystem{
		{name: "as it is"},
		{name: "tmpfs", mount: []string{"mount", "-t", "tmpfs", "-o", "size=64m"}},
		{name: "ext4", make: []string{"mkfs.ext4", "-q"}, mount: []string{"mount", "-o", "loop"}},
		{name: "ext4 of seconds", make: []string{"mkfs.ext4", "-q", "-I", "128"}, mount: []string{"mount", "-o", "loop"}},
		{name: "ntfs-3g", make: []string{"mkfs.ntfs", "-q", "-F"}, mount: []string{"ntfs-3g"}},
		{name: "lowntfs-3g that ignores case", make: []string{"mkfs.ntfs", "-q", "-F"}, mount: []string{"lowntfs-3g", "-o", "ignore_case"}},
		{name: "vfat", make: []string{"mkfs.vfat"}, mount: []string{"mount", "-t", "vfat", "-o", "loop,umask=000"}},
		{name: "vfat of lower case", make: []string{"mkfs.vfat"}, mount: []string{"mount", "-t", "vfat", "-o", "loop,umask=000,shortname=lower"}},
		{name: "exfat", make: []string{"mkfs.exfat"}, mount: []string{"mount.exfat-fuse", "-o", "umask=000,allow_other"}, block: true},
	}
}

// lend mounts the file system over dir until the test ends. If the machine cannot mount it, lend skips the test;
// scripts/test lists skipped tests.
func (f *fileSystem) lend(t *testing.T, dir string) {
	t.Helper()
	try(t, os.MkdirAll(dir, 0o755))
	if len(f.mount) == 0 {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	source := "none"
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Skipf("%s cannot be mounted on this machine: %v: %s", f.name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if len(f.make) > 0 {
		source = filepath.Join(t.TempDir(), "volume")
		try(t, os.WriteFile(source, nil, 0o600))
		try(t, os.Truncate(source, 64<<20))
		run(append(f.make, source)...)
	}
	if f.block {
		source = run("losetup", "--find", "--show", source)
		t.Cleanup(func() { try(t, exec.Command("losetup", "--detach", source).Run()) })
	}
	run(append(f.mount, source, dir)...)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
}

// field makes content like that of real releases: files and folders of all modes, and times that few file systems
// can store.
func field(t *testing.T, src string, second bool) {
	t.Helper()
	tr := tree{"ro": "r", "secret": "s", "run": "#!", "empty": "", "shut/in": "i", "shut/deep/in": "d",
		"img": blob(1, 600_000) + strings.Repeat("\x00", 2<<20) + blob(2, 100_000), "disk.vhdx": blob(3, 200_000) + strings.Repeat("\x00", 2<<20), "then/gone": "g",
		"README.TXT": "upper", "NOTES.TXT": "n", "Docs/Deep Folder/\u00c9t\u00e9.PDF": "d", "UP/LOW/a": "a", "UP/gone": "g"}
	modes := map[string]os.FileMode{"ro": 0o444, "secret": 0o400, "run": 0o755, "shut/in": 0o400, "shut/deep": 0o555, "shut": 0o555}
	years := []int{1601, 1899, 1971, 1979, 1999, 2039, 2108, 2300}
	if second {
		delete(tr, "then/gone")
		tr["ro"], tr["shut/deep/in"], tr["shut/more"], tr["then"] = "r2", "d2", "m", "a file now"
		for _, gone := range []string{"README.TXT", "Docs/Deep Folder/\u00c9t\u00e9.PDF", "UP/gone"} {
			delete(tr, gone)
		}
		tr["ReadMe.txt"], tr["docs/deep folder/\u00c9t\u00e9.PDF"], tr["NOTES.TXT"] = "upper", "d, changed", "n, changed"
		modes["run"] = 0o700
		years = append(years, 2020)
	}
	for _, y := range years {
		tr[fmt.Sprintf("times/%d", y)] = fmt.Sprint(y)
	}
	lay(t, src, tr)
	for _, y := range years {
		at := unix.Timespec{Sec: time.Date(y, 3, 4, 5, 6, 7, 0, time.UTC).Unix(), Nsec: 123456789} // os.Chtimes overflows
		try(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(src, fmt.Sprintf("times/%d", y)), []unix.Timespec{at, at}, 0))
	}
	for _, name := range []string{"ro", "secret", "run", "shut/in", "shut/deep", "shut"} {
		try(t, os.Chmod(filepath.Join(src, name), modes[name]))
	}
}

// TestField pulls, interrupts, resumes, verifies and updates on the file systems, accounts and umasks that sites
// use. Metadata that a target cannot store is neither an error nor damage, and no work is done twice.
func TestField(t *testing.T) {
	for _, f := range fileSystems() {
		for _, root := range []bool{true, false} {
			for _, umask := range []int{0o077, 0} {
				t.Run(fmt.Sprintf("%s/root %t/umask %03o", f.name, root, umask), func(t *testing.T) {
					if root && os.Geteuid() != 0 {
						t.Skip("this account is not root")
					}
					inField(t, f, root, umask)
				})
			}
		}
	}
}

func inField(t *testing.T, f fileSystem, root bool, umask int) {
	p, src, _ := dirs(t, tree{})
	if os.Geteuid() == 0 {
		(&fileSystem{name: "tmpfs", mount: []string{"mount", "-t", "tmpfs"}}).lend(t, src) // keeps all times
		src = filepath.Join(src, "content")
	}
	for _, second := range []bool{false, true} {
		field(t, src, second)
		p.publish(src)
		openTree(src)
	}
	volume := filepath.Join(t.TempDir(), "volume")
	f.lend(t, volume)
	dst := filepath.Join(volume, "target") // ext4 has a folder of its own in the volume
	try(t, os.Mkdir(dst, 0o755))
	if !root {
		nobody(t, dst)
	}
	t.Cleanup(func() { openTree(dst) })
	old := syscall.Umask(umask)
	t.Cleanup(func() { syscall.Umask(old) })
	for release := trust.ReleaseNumber(1); release <= 2; release++ {
		want := func(o *Options) { o.Release = release }
		for _, at := range []string{journalName, dst} {
			if _, err := p.pull(dst, func(o *Options) { want(o); o.Observer = interruptAt(at) }); err == nil {
				t.Fatalf("release %d: was not interrupted", release)
			}
		}
		r := p.must(dst, want)
		for _, err := range r.retry {
			t.Errorf("release %d: %v", release, err)
		}
		if r := p.must(dst, want); !r.NoOp {
			t.Errorf("release %d: not a no-op after: %v", release, r.outcomes())
		}
		checkField(t, dst)
		if r := p.must(dst, func(o *Options) { want(o); o.Rehash = true }); len(r.files) > 0 {
			t.Errorf("release %d: a pull that reads all has changed %v", release, r.outcomes())
		}
	}
}

// interruptAt kills a run when it writes the journal, or during its commit.
func interruptAt(where string) refuser {
	places := 0
	return func(op durable.Op) error {
		if op.Kind == durable.Rename && !strings.HasPrefix(op.To, stateDir) {
			places++
		}
		if places > 3 || op.To == where {
			return errKilled
		}
		return nil
	}
}

// checkField reads every byte as verify does, and expects no difference.
func checkField(t *testing.T, dst string) {
	t.Helper()
	x, err := Inspect(dst, Options{Channel: channel, Now: time.Now})
	try(t, err)
	next, err := x.Entries()
	try(t, err)
	_, err = verify.Run(t.Context(), dst, func() (*manifest.Entry, error) {
		e, _, err := next()
		return e, err
	}, verify.Options{}, func(f verify.Finding) { t.Errorf("%s: %s: %s", f.Path, f.Problem, f.Detail) })
	try(t, err)
	try(t, x.Close())
}
