package tasks

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// alarms records the overdue tasks.
type alarms struct {
	mu   sync.Mutex
	text map[string]string
}

func newAlarms() *alarms { return &alarms{text: map[string]string{}} }

func (a *alarms) Overdue(task, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text[task] = text
}

func (a *alarms) OnTime(task string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.text, task)
}

func (a *alarms) all() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.text)
}

// TestOneHangs: a hanging task is overdue and reported. The other tasks
// continue, and so does this one once it is free.
func TestOneHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := newAlarms()
		s := New(Options{Alarms: told, Now: time.Now})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		free := make(chan struct{})
		var turns atomic.Int64
		go func() {
			_ = s.Run(ctx, Task{Name: "hangs", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { <-free; return nil }})
		}()
		go func() {
			_ = s.Run(ctx, Task{Name: "turns", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { turns.Add(1); return nil }})
		}()
		go func() {
			_ = s.Run(ctx, Task{Name: "fails", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { return errors.New("no disk") }})
		}()
		go func() { _ = s.Watch(ctx, time.Minute) }()
		time.Sleep(59*time.Minute + time.Second)
		synctest.Wait()
		if len(told.all()) > 0 {
			t.Errorf("too early: %v", told.all())
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if late := told.all(); !strings.Contains(late["hangs"], "has been running for") || !strings.Contains(late["fails"], "no disk") || late["turns"] != "" || turns.Load() < 60 {
			t.Errorf("told %v, %d turns", late, turns.Load())
		}
		close(free)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if text := told.all()["hangs"]; text != "" {
			t.Errorf("it goes on, and is told: %q", text)
		}
		list := s.List()
		if len(list) != 3 || list[0].Name != "fails" || !list[0].Overdue || list[1].Overdue || list[1].Success.IsZero() {
			t.Errorf("%+v", list)
		}
		stop()
		synctest.Wait()
	})
}

// TestFailsAndTriesAgain: a task that has failed for too long is reported with its failure, even while its next turn
// runs.
func TestFailsAndTriesAgain(t *testing.T) {
	told := newAlarms()
	s := New(Options{Alarms: told, Now: time.Now})
	task := Task{Name: "fails", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { return errors.New("no disk") }}
	if err := s.Once(t.Context(), task); err == nil {
		t.Fatal("its error is lost")
	}
	s.checkOverdue(2 * time.Hour)
	task.Do = func(context.Context) error {
		s.checkOverdue(time.Second)
		return nil
	}
	if err := s.Once(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if text := told.all()["fails"]; !strings.Contains(text, "no disk") {
		t.Errorf("reported %q", text)
	}
}

// TestOnce: work that is not periodic is overdue only if it takes too long, and
// is forgotten when Retain no longer wants it.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := newAlarms()
		s := New(Options{Alarms: told, Now: time.Now})
		free, done := make(chan struct{}), make(chan error)
		go func() {
			done <- s.Once(t.Context(), Task{Name: "publish package", Bound: time.Hour, Do: func(context.Context) error { <-free; return errors.New("refused") }})
		}()
		synctest.Wait()
		s.checkOverdue(2 * time.Hour)
		s.Retain(func(string) bool { return false })
		if told.all()["publish package"] == "" {
			t.Error("it hangs, and nobody is told")
		}
		close(free)
		if err := <-done; err == nil {
			t.Error("its error is lost")
		}
		if s.checkOverdue(100 * time.Hour); len(told.all()) > 0 {
			t.Errorf("%v", told.all())
		}
		s.Retain(func(string) bool { return false })
		if s.Has("publish package") {
			t.Error("it is not forgotten")
		}
	})
}

// TestRestart: an overdue task stays overdue in the next process, until it
// succeeds. A task that no longer exists is forgotten.
func TestRestart(t *testing.T) {
	told := newAlarms()
	var kept map[string]Past
	o := Options{Alarms: told, Now: time.Now, Keep: func(p map[string]Past) { kept = p }}
	task := func(name string, err error) Task {
		return Task{Name: name, Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { return err }}
	}
	s := New(o)
	_ = s.Once(t.Context(), task("fails", errors.New("no disk")))
	_ = s.Once(t.Context(), task("works", nil))
	_ = s.Once(t.Context(), task("renamed", errors.New("no disk")))
	s.checkOverdue(50 * time.Minute)
	if len(told.all()) > 0 {
		t.Errorf("too early: %v", told.all())
	}
	s = New(o)
	s.Restore(kept)
	for _, name := range []string{"fails", "works", "renamed"} {
		if !s.Has(name) {
			t.Errorf("%s is not known, so that its incident would end", name)
		}
	}
	s.startTask(task("fails", nil), time.Time{})
	s.startTask(task("works", nil), time.Time{})
	if list := s.List(); len(list) != 2 || list[1].Success.IsZero() || !list[0].Success.IsZero() {
		t.Errorf("%+v", list)
	}
	s.checkOverdue(20 * time.Minute)
	if told.all()["fails"] == "" || told.all()["works"] == "" || told.all()["renamed"] != "" {
		t.Errorf("after 70 minutes in two processes: %v", told.all())
	}
	told.Overdue("renamed", "open from before")
	s.checkOverdue(time.Hour)
	if s.Has("renamed") || told.all()["renamed"] != "" {
		t.Error("a task that no longer exists stays")
	}
	_ = s.Once(t.Context(), task("fails", nil))
	if s.checkOverdue(time.Minute); told.all()["fails"] != "" {
		t.Errorf("%v", told.all())
	}
}
