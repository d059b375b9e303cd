package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"nightferry/internal/bucket"
)

// ErrFault is the cause of an injected error.
var ErrFault = errors.New("a fault made for the test")

// ErrDead is the cause of every error after a Rule with Dead.
var ErrDead = errors.New("this process was killed for the test")

// Rule selects the calls of a store that fail, and the kind of failure.
type Rule struct {
	Op     string // get, put, delete or list; "" for any
	Prefix string // of the key
	Nth    int    // the first matching call is 1; 0: every call
	// Done executes the call and then fails, as if the response were lost. For a get, the body ends half way.
	Done bool
	Kind bucket.Kind // of the error; KindOther by default
	// Dead also fails every later call without executing it, as if the process had died here.
	Dead bool
	// Do is called at the fault (after the call, if Done): use it to kill a real process.
	Do func()
}

// Call is one recorded call to a Faulty store.
type Call struct{ Op, Key string }

// Faulty is a store whose calls fail according to rules.
type Faulty struct {
	s     bucket.Store
	mu    sync.Mutex
	rules []Rule
	seen  []int // matches of each rule
	dead  bool
	calls []Call
}

// Fail wraps s. Without rules it only records the calls: run once without rules, and then once with a fault at each
// call.
func Fail(s bucket.Store, rules ...Rule) *Faulty {
	return &Faulty{s: s, rules: rules, seen: make([]int, len(rules))}
}

// Calls returns the calls so far, in the order of their start.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// meet records a call and returns the matching rule, if any.
func (f *Faulty) meet(op, key string) (rule Rule, hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call{op, key})
	if f.dead {
		return Rule{}, true
	}
	for i, r := range f.rules {
		if (r.Op != "" && r.Op != op) || !strings.HasPrefix(key, r.Prefix) {
			continue
		}
		f.seen[i]++
		if r.Nth == 0 || r.Nth == f.seen[i] {
			return r, true
		}
	}
	return Rule{}, false
}

// run executes a call under the rules.
func (f *Faulty) run(op, key string, call func() error) error {
	r, hit := f.meet(op, key)
	if !hit {
		return call()
	}
	if r.Done {
		if err := call(); err != nil {
			return err
		}
	}
	return f.fail(op, key, r)
}

func (f *Faulty) fail(op, key string, r Rule) error {
	f.mu.Lock()
	cause := ErrFault
	if f.dead {
		cause = ErrDead
	}
	f.dead = f.dead || r.Dead
	f.mu.Unlock()
	if r.Do != nil {
		r.Do()
	}
	how := "it did not happen"
	if r.Done {
		how = "but it happened"
	}
	return &bucket.Error{Op: op, Key: key, Kind: r.Kind, Err: fmt.Errorf("%w: %s", cause, how)}
}

// Close closes the store below.
func (f *Faulty) Close() error { return bucket.Close(f.s) }

// Get implements bucket.Store.
func (f *Faulty) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, hit := f.meet("get", key)
	if hit && !r.Done {
		return nil, bucket.Info{}, f.fail("get", key, r)
	}
	rc, info, err := f.s.Get(ctx, key, off, n)
	if err != nil || !hit {
		return rc, info, err
	}
	half := info.Size / 2
	if n > 0 {
		half = n / 2
	} else if off < 0 {
		half = min(-off, info.Size) / 2
	}
	return &brokenBody{ReadCloser: rc, left: half, fail: func() error { return f.fail("get", key, r) }}, info, nil
}

// Put implements bucket.Store.
func (f *Faulty) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (info bucket.Info, err error) {
	err = f.run("put", key, func() error {
		info, err = f.s.Put(ctx, key, body, cond)
		return err
	})
	if err != nil {
		info = bucket.Info{}
	}
	return info, err
}

// Delete implements bucket.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.run("delete", key, func() error { return f.s.Delete(ctx, key) })
}

// List implements bucket.Store.
func (f *Faulty) List(ctx context.Context, prefix string, fn func(bucket.Info) error) error {
	return f.run("list", prefix, func() error { return f.s.List(ctx, prefix, fn) })
}

type brokenBody struct {
	io.ReadCloser
	left int64
	fail func() error
	err  error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.err == nil {
			b.err = b.fail()
		}
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
