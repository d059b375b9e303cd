package pains

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mortal runs the program without root's right to read every file, if the tests run as root.
func (w *world) mortal(args ...string) ran {
	w.t.Helper()
	if os.Getuid() != 0 {
		return w.nightferry(args...)
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		w.t.Fatalf("run as root, this test needs setpriv, of Debian's util-linux: %v", err)
	}
	return w.run(setpriv, append([]string{"--bounding-set=-dac_override,-dac_read_search", program(w.t)}, args...)...)
}

// An unreadable file does not match the release, even if its size and times do.
func TestPain08_UnreadableFile(t *testing.T) {
	w := newWorld(t, plan{})
	store, key := w.initCLI()
	lay(t, w.src, tree{"good": noise(1, 1000), "dir/secret": noise(2, 1000)})
	site := w.site()
	for _, args := range [][]string{{"push", "--release-key", key, w.src, store, channel}, {"pull", store, channel, site}, {"verify", site, store, channel}} {
		if r := w.mortal(args...); r.code != 0 {
			t.Fatalf("%v ended with %d: %s", args, r.code, r.errOut)
		}
	}
	must(t, os.Chmod(filepath.Join(site, "dir/secret"), 0))
	r := w.mortal("verify", site, store, channel)
	if r.code != 3 || !strings.Contains(r.out+r.errOut, "unreadable") || !strings.Contains(r.out+r.errOut, "dir/secret") {
		t.Errorf("verify of a file that cannot be read: exit code %d\n%s%s", r.code, r.out, r.errOut)
	}
	r = w.mortal("pull", "--rehash", store, channel, site)
	if again := w.mortal("verify", site, store, channel); r.code == 0 && again.code != 0 {
		t.Errorf("a pull says that all is well, and verify: %d\n%s%s", again.code, again.out, again.errOut)
	}
}

// An unreadable file of the source is not silently left out of the release.
func TestBadInput_UnreadableSource(t *testing.T) {
	w := newWorld(t, plan{})
	store, key := w.initCLI()
	lay(t, w.src, tree{"good": noise(1, 1000), "dir/secret": noise(2, 1000), "closed/x": noise(3, 10)})
	push := []string{"push", "--release-key", key, w.src, store, channel}
	if r := w.mortal(push...); r.code != 0 {
		t.Fatalf("push ended with %d: %s", r.code, r.errOut)
	}
	site := w.site()
	if r := w.mortal("pull", store, channel, site); r.code != 0 {
		t.Fatalf("pull ended with %d: %s", r.code, r.errOut)
	}
	kept := untouched(t, site)
	put(t, w.src, "good", noise(4, 1000))
	for _, closed := range []string{"dir/secret", "closed"} {
		name := filepath.Join(w.src, closed)
		info, err := os.Stat(name)
		must(t, err)
		must(t, os.Chmod(name, 0))
		r := w.mortal(append([]string{push[0], "--rehash"}, push[1:]...)...)
		if r.code != 4 || !strings.Contains(r.errOut, closed) || !strings.Contains(r.errOut, "permission denied") {
			t.Errorf("push with %s closed: exit code %d: %s", closed, r.code, r.errOut)
		}
		must(t, os.Chmod(name, info.Mode().Perm()))
	}
	if r := w.mortal("pull", store, channel, site); r.code != 0 {
		t.Errorf("pull ended with %d: %s", r.code, r.errOut)
	}
	kept()
}
