package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
)

// Another account made the state folder first, or left a key in it: root does
// not enrol there, and takes nothing from it.
func TestPlantedStateIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give files to another account: nothing is tried")
		return
	}
	w := newWorld(t)
	parent := t.TempDir()
	state := filepath.Join(parent, "nightferry-agent")
	seed, _, err := bus.NewIdentity()
	w.try(err)
	w.try(os.Mkdir(state, 0o755))
	key := filepath.Join(state, seedFile)
	w.try(os.WriteFile(key, append(seed, '\n'), 0o600))
	enrol := func() error {
		_, err := Enrol(t.Context(), w.token("tok1"), EnrolOptions{StateDir: state, Allow: []string{t.TempDir()}, Version: "test", Now: time.Now, Timeout: 10 * time.Second})
		return err
	}
	for _, planted := range []string{key, state} {
		w.try(os.Chown(planted, 4242, 4242))
		if err := enrol(); !errors.Is(err, durable.ErrUntrusted) {
			t.Errorf("%s of another account: %v", planted, err)
		}
		for name, act := range map[string]func() error{
			"load":   func() error { _, err := Load(state); return err },
			"halt":   func() error { return Halt(state, LocalHalt{Reason: "x", By: "y"}) },
			"resume": func() error { return Resume(state) },
			"look":   func() error { _, err := LookHalt(state); return err },
		} {
			if err := act(); !errors.Is(err, durable.ErrUntrusted) {
				t.Errorf("%s with %s of another account: %v", name, planted, err)
			}
		}
		w.try(os.Chown(planted, 0, 0))
	}
	w.try(os.Remove(key))
	w.try(enrol())
	// What lies in the folder of an enrolled site is judged each time.
	w.try(os.Chown(filepath.Join(state, siteFile), 4242, 4242))
	if _, err := Load(state); !errors.Is(err, durable.ErrUntrusted) {
		t.Errorf("site.json of another account: %v", err)
	}
}
