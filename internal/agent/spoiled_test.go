package agent

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nightferry/internal/durable"
)

// spoils are the ways in which a file of the state directory can be damaged.
func spoils() map[string]func(path string) error {
	all := map[string]func(path string) error{
		"a folder":      func(path string) error { return os.MkdirAll(filepath.Join(path, "in it"), 0o700) },
		"an empty one":  func(path string) error { return os.Mkdir(path, 0o700) },
		"of zero bytes": func(path string) error { return durable.WritePrivate(path, nil) },
		"garbage":       func(path string) error { return durable.WritePrivate(path, []byte(strings.Repeat("garbage ", 999))) },
	}
	if runtime.GOOS == "windows" {
		return all
	}
	all["a link"] = func(path string) error { return os.Symlink("/nonexistent", path) }
	all["1 GiB"] = func(path string) error {
		if err := os.WriteFile(path, []byte(strings.Repeat("garbage ", 999)), 0o600); err != nil {
			return err
		}
		return os.Truncate(path, 1<<30)
	}
	return all
}

// copyPrivate copies a folder so that nobody else can read the copy.
func copyPrivate(to, from string) error {
	if err := durable.MkdirPrivate(to); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		target, source := filepath.Join(to, e.Name()), filepath.Join(from, e.Name())
		if e.IsDir() {
			err = copyPrivate(target, source)
		} else if b, rerr := os.ReadFile(source); rerr != nil {
			err = rerr
		} else {
			err = durable.WritePrivate(target, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSpoiledState spoils each file of the state directory in each way. Each file that can be made anew is set aside at the next
// start. A damaged identity ends the agent, and the remedy that it names works.
func TestSpoiledState(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	state := w.enrolled(base)
	d := w.start(state, nil)
	w.await("hello", func() bool { return w.hellos > 0 })
	d.end()
	for _, name := range []string{spoolFile, spoolFile + "-wal", spoolFile + "-shm", lockFile, coreFile, stoppedFile, haltFile, siteFile, seedFile, jwtFile, keyFile} {
		for how, spoil := range spoils() {
			t.Run(name+"/"+how, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "state")
				try := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				try(copyPrivate(dir, state))
				try(os.RemoveAll(filepath.Join(dir, name)))
				try(spoil(filepath.Join(dir, name)))
				if how == "a link" { // it may be planted: the error names its place, and tells the reader to remove it
					if err := Halt(dir, LocalHalt{}); !errors.Is(err, durable.ErrLink) || !strings.Contains(err.Error(), filepath.Join(dir, name)+"\": remove it") {
						t.Fatal(err)
					}
					try(os.Remove(filepath.Join(dir, name)))
					return
				}
				switch name {
				case siteFile, seedFile, jwtFile, keyFile:
					// With a damaged credential the agent runs on and can be halted; the Core refuses it.
					w.replaceIdentity(t, dir, base, name != jwtFile || how == "a folder" || how == "an empty one")
				case haltFile:
					if h, err := LookHalt(dir); h == nil && err == nil {
						t.Error("a damaged order does not stop the site")
					}
					try(Resume(dir))
				default:
					try(Halt(dir, LocalHalt{Reason: "test", By: "test", At: time.Now()}))
					try(Resume(dir))
				}
				w.mu.Lock()
				before := w.hellos
				w.mu.Unlock()
				d := w.start(dir, nil)
				w.await("hello", func() bool { return w.hellos > before })
				d.end()
				if _, err := ReadStatus(t.Context(), dir, time.Now); err != nil {
					t.Errorf("status: %v", err)
				}
			})
		}
	}
}

// replaceIdentity follows the remedy for an identity that cannot be used. With ends, it expects that the agent
// ends with that remedy.
func (w *world) replaceIdentity(t *testing.T, dir, allow string, ends bool) {
	t.Helper()
	if ends {
		err := Run(t.Context(), options(dir, t.Logf))
		var damaged *IdentityError
		if !errors.As(err, &damaged) || !strings.Contains(damaged.Remedy(), "--replace") {
			t.Fatalf("the agent ends with %v", err)
		}
	}
	w.mu.Lock()
	w.used = false
	w.mu.Unlock()
	if _, err := Enrol(t.Context(), w.token("tok1"), EnrolOptions{StateDir: dir, Allow: []string{allow}, Replace: true, Version: "test", Now: time.Now, Timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.old-*"))
	if err != nil || len(old) < 3 {
		t.Errorf("the old identity is kept as %v, %v", old, err)
	}
	if id, err := Load(dir); err != nil || id.key == nil {
		t.Fatal(err)
	}
}
