package agent

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/wire"
)

// TestMachinePutBack: a machine goes back to a snapshot, disks and all. What its
// agent tells then is no repetition of what it told before.
func TestMachinePutBack(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	target, state := filepath.Join(base, "package"), w.enrolled(base)
	d := w.start(state, nil)
	w.publish(tree(5, "one"), target)
	w.await("run 1", func() bool { return w.finished(0) != nil })
	d.end()
	then := t.TempDir()
	copied := func(to, from string) {
		t.Helper()
		w.try(os.RemoveAll(filepath.Join(to, "package")))
		w.try(os.CopyFS(filepath.Join(to, "package"), os.DirFS(filepath.Join(from, "package"))))
	}
	database := func(to, from string) { // with whatever SQLite keeps beside it
		t.Helper()
		for _, side := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(filepath.Join(to, spoolFile+side)); !errors.Is(err, fs.ErrNotExist) {
				w.try(err)
			}
			b, err := os.ReadFile(filepath.Join(from, spoolFile+side))
			if errors.Is(err, fs.ErrNotExist) && side != "" {
				continue
			}
			w.try(err)
			w.try(os.WriteFile(filepath.Join(to, spoolFile+side), b, 0o600))
		}
	}
	copied(then, base)
	database(then, state)
	d = w.start(state, nil)
	for run := 1; run <= 2; run++ {
		w.publish(tree(5+run, "one"), target)
		w.await("a run that will be forgotten", func() bool { return w.finished(run) != nil })
	}
	d.end()
	copied(base, then)
	database(state, then)
	w.mu.Lock()
	told := len(w.events)
	w.mu.Unlock()
	d = w.start(state, nil)
	w.await("the run after it", func() bool {
		var run []byte
		for _, e := range w.events[told:] {
			var s wire.Started
			if e.Kind == wire.StartedEvent && wire.Decode(e.Body, &s) == nil && s.Number == 3 && s.Parent == 1 {
				run = e.Run
			}
			if e.Kind == wire.FinishedEvent && run != nil && bytes.Equal(e.Run, run) {
				return true
			}
		}
		return false
	})
	d.end()
	w.same(target, tree(7, "one"))
}

// TestUnsaidWordsDoNotEndIt: what cannot be said for another reason than that
// the Core is away is said again, too.
func TestUnsaidWordsDoNotEndIt(t *testing.T) {
	w := newWorld(t)
	var broken atomic.Pointer[error]
	tooLarge := errors.New("too large, for the test")
	broken.Store(&tooLarge)
	failed := make(chan struct{}, 1000)
	w.start(w.enrolled(), func(o *Options) {
		o.Dial = func(ctx context.Context, b bus.ClientOptions) (Bus, error) {
			c, err := Dial(ctx, b)
			return brokenBus{c, &broken, failed}, err
		}
	})
	<-failed // hello
	<-failed // stopped
	broken.Store(nil)
	w.want(func(s *wire.State) { s.Beat = 1 })
	// Nobody has heard its hello, so that nobody knows when it hears.
	heard := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		for {
			select {
			case <-heard:
				return
			case <-time.After(100 * time.Millisecond):
				w.tell()
			}
		}
	})
	defer telling.Wait()
	defer close(heard)
	w.await("a beat", func() bool { return w.beats > 0 })
}

type brokenBus struct {
	Bus
	err    *atomic.Pointer[error]
	failed chan struct{}
}

func (b brokenBus) Publish(subject string, data []byte) error {
	if err := b.err.Load(); err != nil {
		b.failed <- struct{}{}
		return *err
	}
	return b.Bus.Publish(subject, data)
}
