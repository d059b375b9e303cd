package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightferry/internal/durable"
)

// Another account may write to a folder between the allowed one and the target,
// and swaps it for a link all the time: nothing is ever written outside.
func TestSwappedFolderIsNotFollowed(t *testing.T) {
	base, outside := t.TempDir(), t.TempDir()
	mid, link := filepath.Join(base, "mid"), filepath.Join(base, "link")
	for _, err := range []error{os.MkdirAll(filepath.Join(mid, "p"), 0o755), os.Mkdir(filepath.Join(outside, "p"), 0o755), os.Symlink(outside, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	id := &Identity{Allow: []string{base}, dir: t.TempDir()}
	stop := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, mid, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	written := 0
	for range 5_000 {
		root, err := id.openAllowed(filepath.Join(mid, "p"), durable.Options{Create: true})
		if err != nil {
			continue
		}
		if root.WriteFile("escaped", []byte("x"), 0o644) == nil {
			written++
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(outside, "p", "escaped")); err == nil {
			t.Error("a file was written outside the allowed folder")
			break
		}
	}
	close(stop)
	swaps.Wait()
	if written == 0 {
		t.Error("nothing was written at all: the test proves nothing")
	}
}

// The allowed folders keep clear of the agent's state, however they are spelt.
func TestAllowMayNotCoverTheState(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	state, link := filepath.Join(base, "var", "agent"), filepath.Join(base, "link")
	w.try(os.MkdirAll(state, 0o700))
	w.try(os.Symlink(filepath.Join(base, "var"), link))
	for _, allow := range []string{base, filepath.Join(base, "var"), state, filepath.Join(state, "x"), link} {
		if _, err := Enrol(t.Context(), w.token("tok1"), EnrolOptions{StateDir: state, Allow: []string{allow}, Version: "test", Now: time.Now, Timeout: 10 * time.Second}); !errors.Is(err, ErrTarget) {
			t.Errorf("state in %s, allowed %s: %v", state, allow, err)
		}
	}
	if err := coversState(filepath.Join(base, "var", "agent-of-another"), state); err != nil {
		t.Errorf("a folder beside it: %v", err)
	}
	missing := filepath.Join(link, "new", "agent")
	if err := coversState(missing, filepath.Join(base, "var", "new", "agent")); !errors.Is(err, ErrTarget) {
		t.Errorf("neither exists yet: %v", err)
	}
	// Also when the list was edited by hand.
	dir := w.enrolled(filepath.Join(base, "srv"))
	id, err := Load(dir)
	w.try(err)
	id.Allow = []string{filepath.Dir(dir)}
	b, err := json.Marshal(id)
	w.try(err)
	w.try(os.WriteFile(filepath.Join(dir, siteFile), b, 0o600))
	if _, err := Load(dir); !errors.Is(err, ErrTarget) {
		t.Errorf("an edited list: %v", err)
	}
}

// A link that is made after the start leads an allowed folder to the agent's state: its targets are refused.
func TestLinkMadeLaterDoesNotCoverTheState(t *testing.T) {
	base := t.TempDir()
	state, link := filepath.Join(base, "var", "agent"), filepath.Join(base, "link")
	id := &Identity{Allow: []string{filepath.Join(link, "agent")}, dir: state}
	if err := os.MkdirAll(filepath.Join(state, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := coversState(id.Allow[0], state); err != nil {
		t.Fatalf("before the link: %v", err)
	}
	if err := os.Symlink(filepath.Join(base, "var"), link); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{id.Allow[0], filepath.Join(id.Allow[0], "sub"), filepath.Join(id.Allow[0], "new")} {
		if got, err := id.checkAllowed(target); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: %q, %v", target, got, err)
		}
		if root, err := id.openAllowed(target, durable.Options{Create: true}); !errors.Is(err, ErrTarget) {
			t.Errorf("opened %s: %v, %v", target, root, err)
		}
	}
	if list, err := os.ReadDir(state); err != nil || len(list) != 1 {
		t.Errorf("the state holds %v, %v", list, err)
	}
}
