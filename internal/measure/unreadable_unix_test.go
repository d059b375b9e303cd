//go:build unix

package measure_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nightferry/internal/manifest"
	"nightferry/internal/measure"
)

// childEnv makes this test binary measure a folder as an account that cannot
// read all of it. The child builds the entries of the release itself.
const childEnv = "NIGHTFERRY_TEST_MEASURE"

func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	entries := []manifest.Entry{{Path: "d", Kind: manifest.Dir}, {Path: "d/x", Size: 1}, {Path: "d/y", Size: 1}, {Path: "e", Kind: manifest.Dir}, {Path: "f", Size: 1}}
	if st, err := os.Stat(filepath.Join(dir, "f")); err == nil {
		entries[4].MTime = st.ModTime().UnixNano()
	}
	next := func() (*manifest.Entry, error) {
		if len(entries) == 0 {
			return nil, nil
		}
		e := &entries[0]
		entries = entries[1:]
		return e, nil
	}
	res, err := measure.Run(context.Background(), dir, next, measure.Options{}, func(f measure.Finding) { fmt.Println(f.Outcome, f.Path) })
	fmt.Println(res.Failed, res.Unchanged, err)
}

// Unreadable paths do not pass: neither a file, nor the content of a folder
// that cannot be listed.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"d/x", "d/y", "e/", "f"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "e"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d"} {
		path := filepath.Join(dir, name)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(path, 0o755) }) // so that it can be removed
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	if os.Geteuid() == 0 { // root can read everything: use another account
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		public := filepath.Join(t.TempDir(), "measure.test")   // a path that the other account can reach
		if err := os.WriteFile(public, b, 0o755); err != nil { //nolint:gosec // it is a program
			t.Fatal(err)
		}
		for p := filepath.Dir(public); strings.HasPrefix(p, filepath.Clean(os.TempDir())+"/"); p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for p := dir; strings.HasPrefix(p, filepath.Clean(os.TempDir())+"/"); p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Path, cmd.Args = public, []string{public}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := []string{"failed d", "failed d/x", "failed d/y", "failed f", "4 1 <nil>"}
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
