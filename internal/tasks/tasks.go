// Package tasks runs what is done again and again. Each task has a name, a
// period, a bound and a goroutine of its own, so that one that hangs delays no
// other; and one that is overdue is an incident.
package tasks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Alarms hears of a task that is overdue, and of one that is not: again and
// again, for each task.
type Alarms interface {
	Overdue(task, text string)
	OnTime(task string)
}

// Options of a Service.
type Options struct {
	Alarms Alarms
	Now    func() time.Time // this machine's clock
}

// Task is work that is done again and again, or while there is any.
type Task struct {
	Name   string
	Period time.Duration // 0: it is not periodic, and overdue only while it takes too long
	Bound  time.Duration // how late the end of a turn may be
	Do     func(context.Context) error
}

// Status is how a task is doing.
type Status struct {
	Name    string        `json:"name"`
	Period  time.Duration `json:"period_ns,omitempty"`
	Bound   time.Duration `json:"bound_ns"`
	Running time.Time     `json:"running,omitzero"` // since when, while it runs
	Success time.Time     `json:"success,omitzero"` // the end of the last turn that succeeded
	Error   string        `json:"error,omitempty"`  // of the last turn, where it failed
	Overdue bool          `json:"overdue,omitempty"`
}

// Service knows the tasks. It is safe for concurrent use.
type Service struct {
	o   Options
	mu  sync.Mutex
	all map[string]*entry
}

type entry struct {
	task    Task
	from    time.Time // since when it is known
	running time.Time
	success time.Time
	failure string
}

// New makes a service without tasks.
func New(o Options) *Service { return &Service{o: o, all: map[string]*entry{}} }

// Run takes a task's turns, one each period, until ctx ends.
func (s *Service) Run(ctx context.Context, t Task) error {
	s.begin(t, time.Time{})
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
	e := s.begin(t, s.o.Now())
	err := t.Do(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.running = time.Time{}
	if err != nil {
		e.failure = err.Error()
		return err
	}
	e.success, e.failure = s.o.Now(), ""
	return nil
}

func (s *Service) begin(t Task, now time.Time) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[t.Name]
	if e == nil {
		e = &entry{from: s.o.Now()}
		s.all[t.Name] = e
	}
	e.task, e.running = t, now
	return e
}

// Retain forgets the tasks that keep does not want and that do not run.
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

// late returns by how much a task is overdue; 0 or less: it is not.
func (e *entry) late(now time.Time) time.Duration {
	late := time.Duration(0)
	if !e.running.IsZero() {
		late = now.Sub(e.running) - e.task.Bound
	}
	if e.task.Period > 0 {
		last := e.from
		if e.success.After(last) {
			last = e.success
		}
		late = max(late, now.Sub(last)-e.task.Period-e.task.Bound)
	}
	return late
}

// List returns the tasks, by name.
func (s *Service) List() []Status {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for name, e := range s.all {
		out = append(out, Status{Name: name, Period: e.task.Period, Bound: e.task.Bound, Running: e.running, Success: e.success, Error: e.failure, Overdue: e.late(now) > 0})
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Watch tells Alarms of each task, every so often, until ctx ends.
func (s *Service) Watch(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s.Check()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Check tells Alarms of each task once.
func (s *Service) Check() {
	now := s.o.Now()
	for _, x := range s.List() {
		if !x.Overdue {
			s.o.Alarms.OnTime(x.Name)
			continue
		}
		s.o.Alarms.Overdue(x.Name, x.why(now))
	}
}

func (x *Status) why(now time.Time) string {
	switch {
	case !x.Running.IsZero():
		return fmt.Sprintf("task %s has been running for %s, and may take %s", x.Name, now.Sub(x.Running).Round(time.Second), x.Bound)
	case x.Success.IsZero():
		return fmt.Sprintf("task %s has not succeeded since the Core started: %s", x.Name, x.Error)
	}
	return fmt.Sprintf("task %s last succeeded %s ago, and is due every %s: %s", x.Name, now.Sub(x.Success).Round(time.Second), x.Period, x.Error)
}
