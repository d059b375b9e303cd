package tasks

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type alarms map[string]string

func (a alarms) Overdue(task, text string) { a[task] = text }
func (a alarms) OnTime(task string)        { delete(a, task) }

// TestOneHangs: a hanging task is overdue and reported. The other tasks
// continue, and so does this one once it is free.
func TestOneHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := alarms{}
		s := New(Options{Alarms: told, Now: time.Now})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		free := make(chan struct{})
		turns := 0
		go func() {
			_ = s.Run(ctx, Task{Name: "hangs", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { <-free; return nil }})
		}()
		go func() {
			_ = s.Run(ctx, Task{Name: "turns", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { turns++; return nil }})
		}()
		go func() {
			_ = s.Run(ctx, Task{Name: "fails", Period: time.Minute, Bound: time.Hour, Do: func(context.Context) error { return errors.New("no disk") }})
		}()
		go func() { _ = s.Watch(ctx, time.Minute) }()
		time.Sleep(59*time.Minute + time.Second)
		synctest.Wait()
		if len(told) > 0 {
			t.Errorf("too early: %v", told)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !strings.Contains(told["hangs"], "has been running for") || !strings.Contains(told["fails"], "no disk") || told["turns"] != "" || turns < 60 {
			t.Errorf("told %v, %d turns", told, turns)
		}
		close(free)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if told["hangs"] != "" {
			t.Errorf("it goes on, and is told: %q", told["hangs"])
		}
		list := s.List()
		if len(list) != 3 || list[0].Name != "fails" || !list[0].Overdue || list[1].Overdue || list[1].Success.IsZero() {
			t.Errorf("%+v", list)
		}
		stop()
		synctest.Wait()
	})
}

// TestOnce: work that is not periodic is overdue only if it takes too long, and
// is forgotten when Retain no longer wants it.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := alarms{}
		s := New(Options{Alarms: told, Now: time.Now})
		free, done := make(chan struct{}), make(chan error)
		go func() {
			done <- s.Once(t.Context(), Task{Name: "publish package", Bound: time.Hour, Do: func(context.Context) error { <-free; return errors.New("refused") }})
		}()
		synctest.Wait()
		s.check(2 * time.Hour)
		s.Retain(func(string) bool { return false })
		if told["publish package"] == "" {
			t.Error("it hangs, and nobody is told")
		}
		close(free)
		if err := <-done; err == nil {
			t.Error("its error is lost")
		}
		if s.check(100 * time.Hour); len(told) > 0 {
			t.Errorf("%v", told)
		}
		s.Retain(func(string) bool { return false })
		if s.Has("publish package") {
			t.Error("it is not forgotten")
		}
	})
}
