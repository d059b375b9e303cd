package apply

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
)

// stopper issues a halt order before a run's at-th change, and records changes in the target after it.
type stopper struct {
	mu    sync.Mutex
	at, n int // 0: never
	give  func()
	ops   []durable.Op
	late  []durable.Op
}

func (s *stopper) Before(op durable.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op.Kind == durable.Probe {
		return nil
	}
	s.n++
	op.Data = nil
	s.ops = append(s.ops, op)
	if s.n == s.at {
		s.give()
	}
	name := op.Name
	if op.Kind == durable.Rename {
		name = op.To
	}
	syncs := op.Kind == durable.SyncFile || op.Kind == durable.SyncDir || op.Kind == durable.SyncAll // change nothing; Windows needs more of them
	if s.at > 0 && s.n > s.at && !syncs && !strings.HasPrefix(name, stateDir) {
		s.late = append(s.late, op)
	}
	return nil
}

// TestPain14_StopInMidCommit issues a halt order before each change of a commit in turn. Only the current step may
// still change the target. Every file is whole, the old or the new one. The run returns ErrUnfinished, and the next
// run finishes the commit without fetching. The result is the same if the run's context had ended before for a
// reason that lets the commit finish.
func TestPain14_StopInMidCommit(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	lay(t, src, after)
	p.publish(src)
	run := func(n int, closed bool) (string, *stopper, error) {
		to := filepath.Join(filepath.Dir(dst), fmt.Sprint("dst", n, closed))
		p.must(to, func(o *Options) { o.Release = 1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		var order error
		s := &stopper{at: n, give: func() {
			if closed {
				cancel(errors.New("the window has closed"))
			}
			order = &halt.Error{Order: halt.Order{ID: halt.ID{5}, Scope: halt.All, Reason: "test"}}
			cancel(order)
		}}
		o := options(nil)
		o.Observer, o.Gate = s, func(context.Context) error { s.mu.Lock(); defer s.mu.Unlock(); return order }
		_, err := Run(ctx, p.store, to, o)
		return to, s, err
	}
	_, s, err := run(0, false)
	if err != nil {
		t.Fatal(err)
	}
	first := 0
	for i, op := range s.ops {
		if op.Kind == durable.Rename && op.To == journalName {
			first = i + 2
		}
	}
	if first == 0 {
		t.Fatal("the commit has no journal")
	}
	for _, closed := range []bool{false, true} {
		unfinished := 0
		for n := first; n <= len(s.ops); n++ {
			what := fmt.Sprintf("stopped at change %d of %d, the commit begins at %d, the window is closed: %t", n, len(s.ops), first, closed)
			to, s, err := run(n, closed)
			order := (*halt.Error)(nil)
			switch {
			case err == nil: // all was done already
			case !errors.As(err, &order) || order.Order.ID != halt.ID{5}:
				t.Fatalf("%s: %v", what, err)
			}
			whole(t, what, to, before, after)
			jerr := pending(rootOf(t, to))
			if err != nil && jerr == nil {
				unfinished++
				if !errors.Is(err, ErrUnfinished) {
					t.Errorf("%s: it does not say that it is unfinished: %v", what, err)
				}
				if len(s.late) > 2 { // a step is two changes at most
					t.Errorf("%s: %d changes of the target after the order: %v", what, len(s.late), s.late)
				}
			}
			r := p.must(to, nil)
			sameTree(t, src, to)
			if jerr == nil && r.BytesFetched != 0 {
				t.Errorf("%s: to finish it %d bytes were fetched", what, r.BytesFetched)
			}
		}
		t.Logf("%d of %d stops left an unfinished commit", unfinished, len(s.ops)-first+1)
		if unfinished < 15 {
			t.Errorf("only %d stops hit the commit", unfinished)
		}
	}
}

// TestPain14_PullStopsMidway: a pull without a Core checks the store repeatedly for halt orders, and obeys one that
// arrives during the pull.
func TestPain14_PullStopsMidway(t *testing.T) {
	p, src, dst := dirs(t, tree{"a.img": blob(1, 6_000_000), "b.img": blob(2, 6_000_000)})
	p.publish(src)
	var ahead atomic.Int64
	order := sync.OnceFunc(func() {
		_, err := p.open().Halts().Put(t.Context(), p.key, func(o *halt.Orders) error {
			o.Add(halt.Order{ID: halt.NewID(), Scope: halt.Channel, Value: channel, Reason: "test"})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		ahead.Store(int64(time.Minute))
	})
	_, err := p.pull(dst, func(o *Options) {
		o.Connections = 1
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		o.Observer = refuser(func(op durable.Op) error {
			if op.Kind == durable.Write && strings.HasPrefix(op.Name, stageDir) {
				order()
			}
			return nil
		})
	})
	if stop := (*halt.Error)(nil); !errors.As(err, &stop) || len(seen(t, dst)) != 0 {
		t.Fatalf("%v; %d names in the target", err, len(seen(t, dst)))
	}
}
