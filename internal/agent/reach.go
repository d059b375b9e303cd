package agent

import (
	"errors"
	"sync"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/runs"
)

// answerTime is how long the agent waits for a target's disk or share to answer.
const answerTime = 30 * time.Second

var errNoAnswer = errors.New("its disk or share does not answer")

// reaches bounds the first access to each target. On a dead share the system may block a call without end. Such a call
// keeps its goroutine, at most one for each target, and later accesses fail at once until the call returns.
type reaches struct {
	mu   sync.Mutex
	wait time.Duration
	open map[string]*reach // by target
}

// reach is one access to a target. clean and err are valid once done is closed.
type reach struct {
	done  chan struct{}
	late  bool
	clean string
	err   error
}

func newReaches() *reaches { return &reaches{wait: answerTime, open: map[string]*reach{}} }

// try returns the result of check, or an apply.UnreadableError if it does not return in time.
func (p *reaches) try(target string, check func() (string, error)) (string, error) {
	p.mu.Lock()
	r := p.open[target]
	if r == nil {
		r = &reach{done: make(chan struct{})}
		p.open[target] = r
		go func() {
			r.clean, r.err = check()
			p.mu.Lock()
			delete(p.open, target)
			p.mu.Unlock()
			close(r.done)
		}()
	}
	wait := p.wait
	if r.late {
		wait = 0
	}
	p.mu.Unlock()
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case <-r.done:
		return r.clean, r.err
	case <-limit.C:
	}
	p.mu.Lock()
	r.late = true
	p.mu.Unlock()
	return "", &apply.UnreadableError{Target: target, Err: errNoAnswer}
}

// reachTarget returns the cleaned target if the site allows it and it can be read. The error is an
// apply.UnreadableError, or the reason why the target is not allowed.
func (c *session) reachTarget(target string) (string, error) {
	return c.reaches.try(target, func() (string, error) {
		clean, err := c.id.checkAllowed(target)
		if err == nil {
			err = apply.CheckReadable(clean)
		}
		return clean, err
	})
}

// failureState returns the state of a run that failed with err, and its cause: unreadable if its target cannot be read
// now, else failed.
func (c *session) failureState(target string, err error) (runs.State, error) {
	if is[*apply.UnreadableError](err) {
		return runs.Unreadable, err
	}
	if _, now := c.reachTarget(target); is[*apply.UnreadableError](now) {
		return runs.Unreadable, now
	}
	return runs.Failed, err
}
