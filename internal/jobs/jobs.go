// Package jobs runs long work that clients have asked for. A job has an id, outlives the connection of its client, can be
// followed by any number of clients and be stopped. It sends lines: those of its result are kept, and of its progress the
// newest. A slow follower never delays a job.
package jobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"nightferry/internal/ledger"
)

// States of a job.
const (
	Running     = "running"
	Done        = "done"
	Failed      = "failed"
	Stopped     = "stopped"     // by a person
	Interrupted = "interrupted" // by the end of the Core
)

const (
	maxRunning = 64
	maxEach    = 16        // of one person, so that the others can work
	maxLines   = 8 << 20   // bytes of a running job's result
	maxKept    = 256 << 10 // bytes of its result that are stored
)

var (
	// ErrBusy means that as many jobs run as may.
	ErrBusy = fmt.Errorf("%d jobs run, and no more may", maxRunning)
	// ErrMany means that one person has as many jobs as may run.
	ErrMany = fmt.Errorf("%d of your jobs run, and no more may", maxEach)
	// ErrEnding means that the process ends.
	ErrEnding = errors.New("the Core stops")

	errInterrupted = errors.New("the Core stopped during this job")
)

// StoppedError is the cause of the end of a job that a person has stopped.
type StoppedError struct{ By string }

func (e *StoppedError) Error() string { return e.By + " stopped this job" }

// Store keeps jobs. *ledger.Jobs is one.
type Store interface {
	Add(ctx context.Context, j ledger.Job) error
	Finish(ctx context.Context, j ledger.Job) error
	Interrupt(ctx context.Context, state string, at time.Time) error
	List(ctx context.Context, after string, limit int) ([]ledger.Job, error)
	Get(ctx context.Context, id string) (ledger.Job, error)
}

// Options of Open.
type Options struct {
	Store Store
	Now   func() time.Time
}

// Line is one line of a job, as JSON without line breaks.
type Line struct {
	Text     []byte
	Progress bool // it is worth nothing once there is a newer one
}

// Work does a job and sends its lines. It returns the error, as JSON; nil: it succeeded.
type Work func(ctx context.Context, send func(Line)) (failure []byte)

// Service runs jobs. It is safe for concurrent use.
type Service struct {
	o    Options
	work sync.WaitGroup

	mu      sync.Mutex
	ending  bool
	running map[string]*running
}

type running struct {
	id, who string
	stop    context.CancelCauseFunc

	mu       sync.Mutex
	job      ledger.Job
	lines    [][]byte
	first    int // number of lines[0]
	size     int
	progress []byte
	turn     int // of progress
	ended    bool
	changed  chan struct{} // closed at the next change
}

// Status is a job with what only the running process knows.
type Status struct {
	ledger.Job
	Progress []byte // newest line of it; nil: none
}

// Open ends the jobs of an earlier process. If the store has no room for that, the next Open does it.
func Open(ctx context.Context, o Options) (*Service, error) {
	err := o.Store.Interrupt(ctx, Interrupted, o.Now())
	if errors.Is(err, ledger.ErrFull) {
		err = nil
	}
	return &Service{o: o, running: map[string]*running{}}, err
}

// Start starts a job with the values of ctx, and not its end. ID, Started and State of j are set.
func (s *Service) Start(ctx context.Context, j ledger.Job, work Work) (ledger.Job, error) {
	id := make([]byte, 8)
	rand.Read(id) // never fails (crypto/rand)
	j.ID, j.Started, j.State = hex.EncodeToString(id), s.o.Now(), Running
	always := context.WithoutCancel(ctx)
	own, stop := context.WithCancelCause(always)
	r := &running{id: j.ID, who: j.Who, job: j, stop: stop, changed: make(chan struct{})}
	if err := s.reserve(r); err != nil {
		stop(nil)
		return j, err
	}
	if err := s.o.Store.Add(ctx, j); err != nil {
		stop(nil)
		s.forget(r)
		s.work.Done()
		return j, err
	}
	go func() {
		defer s.work.Done()
		defer stop(nil)
		failure := work(own, r.add)
		s.finish(always, r, failure, context.Cause(own))
	}()
	return j, nil
}

// reserve counts a job as running.
func (s *Service) reserve(r *running) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending:
		return ErrEnding
	case len(s.running) >= maxRunning:
		return ErrBusy
	}
	own := 0
	for _, other := range s.running {
		if other.who == r.who {
			own++
		}
	}
	if own >= maxEach {
		return ErrMany
	}
	s.running[r.id] = r
	s.work.Add(1)
	return nil
}

func (s *Service) forget(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, r.id)
}

// finish stores the end of a job. If that fails, the job is listed as running until the next Open.
func (s *Service) finish(ctx context.Context, r *running, failure []byte, cause error) {
	r.mu.Lock()
	j := r.job
	j.Ended, j.State, j.Error = s.o.Now(), Done, failure
	switch {
	case failure == nil:
	case errors.Is(cause, errInterrupted):
		j.State = Interrupted
	case errors.As(cause, new(*StoppedError)):
		j.State = Stopped
	default:
		j.State = Failed
	}
	j.Lines = r.kept()
	r.mu.Unlock()
	_ = s.o.Store.Finish(ctx, j)
	r.mu.Lock()
	r.job, r.ended = j, true
	r.wake()
	r.mu.Unlock()
	s.forget(r)
}

// kept returns the lines that are stored: the first ones, as many as fit.
func (r *running) kept() []byte {
	var b bytes.Buffer
	for _, l := range r.lines {
		if b.Len()+len(l)+1 > maxKept {
			break
		}
		b.Write(l)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func (r *running) add(l Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Progress {
		r.progress = l.Text
		r.turn++
	} else {
		r.lines, r.size = append(r.lines, l.Text), r.size+len(l.Text)
		for r.size > maxLines && len(r.lines) > 1 {
			r.size -= len(r.lines[0])
			r.lines, r.first = r.lines[1:], r.first+1
		}
	}
	r.wake()
}

// wake wakes the followers. The caller holds the lock.
func (r *running) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run waits until ctx ends, and then ends all jobs.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.ending = true
	for _, r := range s.running {
		r.stop(errInterrupted)
	}
	s.mu.Unlock()
	s.work.Wait()
	return ctx.Err()
}

// Stop stops a job, and waits for its end as long as ctx. To stop one that has ended changes nothing.
func (s *Service) Stop(ctx context.Context, id, by string) (Status, error) {
	r := s.find(id)
	if r == nil {
		return s.Show(ctx, id)
	}
	r.stop(&StoppedError{by})
	for {
		r.mu.Lock()
		ended, changed := r.ended, r.changed
		r.mu.Unlock()
		if ended {
			return s.Show(ctx, id)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
}

func (s *Service) find(id string) *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

// Show returns the one job whose id starts with the digits id, or ledger.ErrNotFound. Stop and Follow want the whole id.
func (s *Service) Show(ctx context.Context, id string) (Status, error) {
	j, err := s.o.Store.Get(ctx, id)
	return s.statusOf(j), err
}

// List lists jobs, the newest first.
func (s *Service) List(ctx context.Context, after string, limit int) ([]Status, error) {
	list, err := s.o.Store.List(ctx, after, limit)
	out := make([]Status, len(list))
	for i := range list {
		out[i] = s.statusOf(list[i])
	}
	return out, err
}

func (s *Service) statusOf(j ledger.Job) Status {
	out := Status{Job: j}
	if r := s.find(j.ID); r != nil && j.Ended.IsZero() {
		r.mu.Lock()
		defer r.mu.Unlock()
		out.Progress, out.Lines = r.progress, r.kept()
	}
	return out
}

// Follow sends the lines of a job, from its first, until it has ended, and returns its end. missed counts lines before this
// one that were too many to keep.
func (s *Service) Follow(ctx context.Context, id string, send func(text []byte, missed int) error) (ledger.Job, error) {
	r := s.find(id)
	if r == nil {
		j, err := s.o.Store.Get(ctx, id)
		for l := range bytes.Lines(j.Lines) {
			if err == nil {
				err = send(bytes.TrimSuffix(l, []byte("\n")), 0)
			}
		}
		return j, err
	}
	next, turn := 0, 0
	for {
		r.mu.Lock()
		missed := max(0, r.first-next)
		lines := r.lines[max(0, next-r.first):]
		next = r.first + len(r.lines)
		progress, ended, changed, j := r.progress, r.ended, r.changed, r.job
		if r.turn == turn {
			progress = nil
		}
		turn = r.turn
		r.mu.Unlock()
		for _, l := range lines {
			if err := send(l, missed); err != nil {
				return j, err
			}
			missed = 0
		}
		if progress != nil && !ended {
			if err := send(progress, 0); err != nil {
				return j, err
			}
		}
		if ended {
			return j, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return j, context.Cause(ctx)
		}
	}
}
