// Package tasks runs repeated work. Each task has a name, a period, a bound and
// its own goroutine, so that a hanging task delays no other. An overdue task
// raises an incident.
package tasks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Alarms receives, again and again for each task, whether the task is overdue.
type Alarms interface {
	Overdue(task, text string)
	OnTime(task string)
}

// Options of a Service.
type Options struct {
	Alarms Alarms
	Now    func() time.Time      // for display; lateness is counted by Watch, which no clock change affects
	Keep   func(map[string]Past) // stores what Restore returns to a later process; nil: nothing is stored
}

// Past is what outlives the process of a periodic task.
type Past struct {
	Success time.Time     `json:"success,omitzero"`
	Idle    time.Duration `json:"idle_ns"` // how long a Core has run since
}

// Task is work that is repeated, or done while there is any.
type Task struct {
	Name   string
	Period time.Duration // 0: not periodic, and overdue only if it takes too long
	Bound  time.Duration // how late the end of a turn may be
	Do     func(context.Context) error
}

// Status is the current state of a task.
type Status struct {
	Name    string        `json:"name"`
	Period  time.Duration `json:"period_ns,omitempty"`
	Bound   time.Duration `json:"bound_ns"`
	Running time.Time     `json:"running,omitzero"` // since when, while it runs
	Success time.Time     `json:"success,omitzero"` // the end of the last turn that succeeded
	Error   string        `json:"error,omitempty"`  // of the last turn, if it failed
	Overdue bool          `json:"overdue,omitempty"`
}

// Service runs the tasks and keeps their status. It is safe for concurrent use.
type Service struct {
	o   Options
	mu  sync.Mutex
	all map[string]*entry
}

type entry struct {
	task    Task
	running time.Time
	success time.Time
	failure string
	turn    time.Duration // how long the turn under way has taken
	idle    time.Duration // since the last success, or since the task was first seen
}

// forget is how long a restored task may stay unseen before it is forgotten.
const forget = time.Hour

// Restore makes known the tasks of an earlier process. An overdue one stays
// overdue until it succeeds. Call it before any task runs.
func (s *Service) Restore(past map[string]Past) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range past {
		s.all[name] = &entry{success: p.Success, idle: max(0, p.Idle)}
	}
}

// past returns what Restore needs.
func (s *Service) past() map[string]Past {
	out := map[string]Past{}
	for name, e := range s.all {
		if e.task.Period > 0 || e.task.Name == "" {
			out[name] = Past{e.success, e.idle}
		}
	}
	return out
}

// New makes a service without tasks.
func New(o Options) *Service { return &Service{o: o, all: map[string]*entry{}} }

// Run takes a task's turns, one each period, until ctx ends.
func (s *Service) Run(ctx context.Context, t Task) error {
	s.startTask(t, time.Time{})
	tick := time.NewTicker(t.Period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			_ = s.Once(ctx, t) // kept in its status
		}
	}
}

// Once takes one turn of a task, and returns its error.
func (s *Service) Once(ctx context.Context, t Task) error {
	e := s.startTask(t, s.o.Now())
	err := t.Do(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.running = time.Time{}
	if err != nil {
		e.failure = err.Error()
		return err
	}
	e.success, e.failure, e.idle = s.o.Now(), "", 0
	return nil
}

func (s *Service) startTask(t Task, now time.Time) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[t.Name]
	if e == nil {
		e = &entry{}
		s.all[t.Name] = e
	}
	e.task, e.running, e.turn = t, now, 0
	return e
}

// Retain forgets the tasks for which keep returns false and that are not
// running.
func (s *Service) Retain(keep func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.all {
		if e.running.IsZero() && !keep(name) {
			delete(s.all, name)
		}
	}
}

// Has reports whether a task of that name is known.
func (s *Service) Has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name] != nil
}

// overdueBy returns by how much a task is overdue; 0 or less: it is not.
func (e *entry) overdueBy() time.Duration {
	late := time.Duration(0)
	if !e.running.IsZero() {
		late = e.turn - e.task.Bound
	}
	if e.task.Period > 0 {
		late = max(late, e.idle-e.task.Period-e.task.Bound)
	}
	return late
}

// List returns the tasks, by name.
func (s *Service) List() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for name, e := range s.all {
		if e.task.Name == "" {
			continue
		}
		out = append(out, Status{Name: name, Period: e.task.Period, Bound: e.task.Bound, Running: e.running, Success: e.success, Error: e.failure, Overdue: e.overdueBy() > 0})
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Watch reports each task to Alarms, once per interval, until ctx ends.
func (s *Service) Watch(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.checkOverdue(every)
		}
	}
}

// checkOverdue adds the time that has passed, and reports each task to Alarms.
func (s *Service) checkOverdue(passed time.Duration) {
	late := map[string]string{} // empty: it is not
	s.mu.Lock()
	for name, e := range s.all {
		e.idle += passed
		if !e.running.IsZero() {
			e.turn += passed
		}
		if e.task.Name == "" { // restored, and not seen yet
			if e.turn += passed; e.turn < forget {
				continue
			}
			delete(s.all, name)
		}
		late[name] = ""
		if e.overdueBy() > 0 {
			late[name] = e.overdueReason()
		}
	}
	past := s.past()
	s.mu.Unlock()
	if s.o.Keep != nil {
		s.o.Keep(past)
	}
	for name, text := range late {
		if text == "" {
			s.o.Alarms.OnTime(name)
		} else {
			s.o.Alarms.Overdue(name, text)
		}
	}
}

// overdueReason returns which of the two bounds is exceeded. A failing task may be in its next turn.
func (e *entry) overdueReason() string {
	if !e.running.IsZero() && e.turn > e.task.Bound {
		return fmt.Sprintf("task %s has been running for %s, and may take %s", e.task.Name, e.turn, e.task.Bound)
	}
	return fmt.Sprintf("task %s has not succeeded for %s, and is due every %s: %s", e.task.Name, e.idle, e.task.Period, e.failure)
}
