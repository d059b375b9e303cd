package console

import (
	"context"
	"sync"
	"time"
)

const (
	// freshFor is for how long a result is shared. A browser waits longer after an event before it loads its page
	// again, so that it never gets a result from before the event.
	freshFor = 500 * time.Millisecond
	// computeWithin bounds the computation of a result: several requests may wait for it.
	computeWithin = 25 * time.Second
	maxShared     = 512
)

// memo computes each result once for all requests of about the same time. A key names the rights that the result
// depends on.
type memo struct {
	now func() time.Time
	mu  sync.Mutex
	all map[string]*result
}

type result struct {
	sync.Mutex // held while it is computed
	at         time.Time
	value      any
}

// forget drops all results, after a change.
func (m *memo) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = nil
}

func (m *memo) find(key string) *result {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil || len(m.all) >= maxShared {
		m.all = map[string]*result{}
	}
	x := m.all[key]
	if x == nil {
		x = &result{}
		m.all[key] = x
	}
	return x
}

// shared returns the result of compute, or one of the same key that is fresh. An error is not shared. The value must
// not be changed.
func shared[T any](r *request, m *memo, key string, compute func(context.Context) (T, error)) (T, error) {
	x := m.find(r.who.Scope.String() + "\x00" + r.who.Role.String() + "\x00" + key)
	x.Lock()
	defer x.Unlock()
	if age := m.now().Sub(x.at); x.value != nil && age >= 0 && age < freshFor {
		return x.value.(T), nil
	}
	// The client that happens to compute may leave: those that wait want the result all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), computeWithin)
	defer cancel()
	v, err := compute(ctx)
	if err == nil {
		x.value, x.at = v, m.now()
	}
	return v, err
}
