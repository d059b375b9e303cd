package core_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/ledger"
	"nightferry/internal/s3test"
)

// enter joins a site as a real agent does, and returns its state directory.
func (w *world) enter(name string, change func(*agent.EnrolOptions)) (state string, err error) {
	w.t.Helper()
	token, err := w.core.Enrolment.Token(w.t.Context(), name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	state = filepath.Join(w.dir, "agents", name)
	o := agent.EnrolOptions{StateDir: state, Allow: []string{w.folder(name)}, Version: "test", Now: time.Now, Timeout: 10 * time.Second}
	if change != nil {
		change(&o)
	}
	_, err = agent.Enrol(w.t.Context(), token.Text, o)
	return state, err
}

// folder is what a site allows; its targets are below.
func (w *world) folder(name string, more ...string) string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "sites", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return filepath.Join(append([]string{dir}, more...)...)
}

// agent runs a real agent on a state directory, until what it returns is
// called.
func (w *world) agent(state string, change func(*agent.Options)) (stop func()) {
	w.t.Helper()
	name := filepath.Base(state)
	o := agent.Options{StateDir: state, Version: "test", Now: time.Now, Retry: 200 * time.Millisecond, AckWait: 2 * time.Second,
		Log: func(n agent.Note) { w.note(fmt.Sprintf("agent %s: %s %s %v", name, n.Channel, n.Text, n.Err)) }}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("agent %s: %v", name, err)
		}
	})
	w.t.Cleanup(stop)
	w.agents = append(w.agents, stop)
	return stop
}

// joined enrols a site and runs its agent.
func (w *world) joined(name string, change func(*agent.Options)) (stop func()) {
	w.t.Helper()
	state, err := w.enter(name, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.agent(state, change)
}

// through puts faults, and a counter, between everybody and the store. Sites
// must enrol after it.
func (w *world) through(faults ...s3test.Fault) *s3test.Wire {
	w.t.Helper()
	b, wire := s3test.Through(w.t, w.bucket, faults...)
	w.stop()
	w.options.StoreURL = b.URL("")
	w.start()
	return wire
}

// noise writes a file that does not compress, and returns its content.
func (w *world) noise(name string, size int, seed uint64) string {
	w.t.Helper()
	b := make([]byte, size)
	c := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = c.Read(b) // never fails
	w.write(name, string(b))
	return string(b)
}

// untilSame waits until a folder holds the channel's source, byte for byte.
func (w *world) untilSame(dir string) {
	w.t.Helper()
	w.until("the source in "+dir, func() bool { return w.same(dir) })
}

func (w *world) same(dir string) bool {
	same := true
	err := filepath.WalkDir(w.source, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(w.source, p)
		want, err := os.ReadFile(p)
		got, missing := os.ReadFile(filepath.Join(dir, rel))
		same = same && missing == nil && string(got) == string(want)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return same
}

// lastRun returns a site's newest run.
func (w *world) lastRun(site string) ledger.Run {
	w.t.Helper()
	runs, err := w.core.Query.Runs(w.t.Context(), ledger.RunFilter{Site: site, Limit: 1})
	if err != nil || len(runs) == 0 {
		w.t.Fatalf("runs of %s: %v, %v", site, runs, err)
	}
	return runs[0]
}

// untilOver waits until no incident of a kind is open.
func (w *world) untilOver(kind string) {
	w.t.Helper()
	w.until("the end of "+kind, func() bool {
		list, err := w.core.Query.Incidents(w.t.Context(), false)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, i := range list {
			if i.Kind == kind {
				return false
			}
		}
		return true
	})
}

// said reports whether a text is in the log.
func (w *world) said(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), text)
}
