package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// TestTargetThatDoesNotAnswer: an access that the system blocks ends after the bound, keeps one goroutine, and later
// accesses end at once until the target answers.
func TestTargetThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newReaches()
		blocked := make(chan struct{})
		calls := 0
		check := func() (string, error) { calls++; <-blocked; return "clean", nil }
		for i, want := range []time.Duration{answerTime, 0, 0} {
			began := time.Now()
			if _, err := p.try("x", check); !is[*apply.UnreadableError](err) || time.Since(began) != want {
				t.Errorf("access %d: %v after %v, want %v", i, err, time.Since(began), want)
			}
		}
		if got, err := p.try("y", func() (string, error) { return "other", nil }); got != "other" || err != nil {
			t.Errorf("another target: %q, %v", got, err)
		}
		close(blocked)
		synctest.Wait()
		if got, err := p.try("x", check); got != "clean" || err != nil || calls != 2 {
			t.Errorf("it answers again: %q, %v, %d calls", got, err, calls)
		}
	})
}

// TestUnreadableTarget: a target whose record cannot be read ends each run as unreadable, without an order, and is
// verified once it can be read again.
func TestUnreadableTarget(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	target := filepath.Join(root, "x")
	w.start(w.enrolled(root), nil)
	w.publish(tree(5, "one"), target)
	w.await("run", func() bool { return w.finished(0) != nil })
	record := filepath.Join(target, ".nightferry")
	w.await("the record to be free", func() bool { return os.Rename(record, record+".kept") == nil }) // the agent closes it after its report
	w.try(os.WriteFile(record, nil, 0o644))                                                           // reading the record fails, as on a bad disk
	w.want(func(s *wire.State) {
		s.Desired[0].Start++
		s.Desired[0].Check = wire.CheckQuick
		s.Desired[0].Verify = true
	})
	w.await("an end in that state", func() bool { f := w.finished(1); return f != nil && f.Verdict == runs.Unreadable })
	w.try(errors.Join(os.Remove(record), os.Rename(record+".kept", record)))
	w.await("a verified end", func() bool {
		for n := 2; ; n++ {
			if f := w.finished(n); f == nil || f.Verdict == runs.Verified {
				return f != nil
			}
		}
	})
}
