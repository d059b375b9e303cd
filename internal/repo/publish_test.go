package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/halt"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

func allKeys(p *press) []string { return testbed.Keys(p.t, p.store, "") }

func TestInitOnce(t *testing.T) {
	p := newPress(t, nil)
	before := p.get(formatKey)
	if _, err := Init(t.Context(), p.store, InitOptions{Root: p.root, Release: p.key, Now: p.now}); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	if string(p.get(formatKey)) != string(before) {
		t.Error("the second init changed the first")
	}
}

// Of concurrent pushes on top of the same head, one wins.
func TestOneOfConcurrentPushesWins(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		p.publish("base")
		const n = 6
		commits := make([]Commit, n)
		repos := make([]*Repo, n)
		for i := range n {
			repos[i] = p.mustOpen(nil)
			commits[i] = p.commit(repos[i], repos[i].Segments(p.folder()), fmt.Appendf(nil, "content %d", i))
		}
		var wg sync.WaitGroup
		errs := make([]error, n)
		rels := make([]*Release, n)
		for i := range n {
			wg.Go(func() { rels[i], errs[i] = repos[i].Publisher(p.key).Publish(t.Context(), commits[i]) })
		}
		wg.Wait()
		head, err := p.mustOpen(nil).Head(t.Context(), testChannel)
		if err != nil {
			t.Fatal(err)
		}
		won := 0
		for i, err := range errs {
			switch {
			case err == nil:
				won++
				if rels[i].Number != head.Number || rels[i].Digest != head.Release {
					t.Errorf("release %d won, the head is %d", rels[i].Number, head.Number)
				}
			case !errors.Is(err, ErrConflict):
				t.Errorf("%v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
		if rel := p.publish("after"); rel.Number <= head.Number || rel.Parent != head.Release {
			t.Errorf("%+v", rel)
		}
	})
}

// A number that a dead push took is skipped; the history continues after it.
func TestOrphanReleaseIsSkipped(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		p.publish("one")
		for i := range 2 {
			s := testbed.Fail(p.store, testbed.Rule{Op: "put", Prefix: "channels/", Nth: 2 + i, Dead: true})
			r := p.mustOpen(s)
			if _, err := r.Publisher(p.key).Publish(t.Context(), p.commit(r, r.Segments(p.folder()), fmt.Appendf(nil, "dead %d", i))); !errors.Is(err, testbed.ErrDead) && !errors.Is(err, testbed.ErrFault) {
				t.Fatal(err)
			}
		}
		rel := p.publish("two")
		if rel.Number != 4 {
			t.Errorf("release %d, want 4", rel.Number)
		}
		r := p.mustOpen(nil)
		head, err := r.Head(t.Context(), testChannel)
		if err != nil {
			t.Fatal(err)
		}
		var numbers []trust.ReleaseNumber
		err = r.History(t.Context(), testChannel, head, func(rel *Release) (bool, error) {
			numbers = append(numbers, rel.Number)
			return true, nil
		})
		if fmt.Sprint(numbers) != "[4 1]" || err != nil {
			t.Errorf("%v %v", numbers, err)
		}
	})
}

// A lost response does not make a push fail, or publish twice.
func TestLostAnswersSettle(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		for i, prefix := range []string{"channels/", "index/root", "channels/"} {
			nth := 1 + i/2 // the release, the root, then the head
			s := testbed.Fail(p.store, testbed.Rule{Op: "put", Prefix: prefix, Nth: nth, Done: true})
			r := p.mustOpen(s)
			rel, err := r.Publisher(p.key).Publish(t.Context(), p.commit(r, r.Segments(p.folder()), fmt.Appendf(nil, "content %d", i)))
			if err != nil || rel.Number != trust.ReleaseNumber(i+1) {
				t.Errorf("%s %d: %+v %v", prefix, nth, rel, err)
			}
			head, err := p.mustOpen(nil).Head(t.Context(), testChannel)
			if err != nil || head.Number != trust.ReleaseNumber(i+1) {
				t.Errorf("%s %d: head %+v %v", prefix, nth, head, err)
			}
		}
	})
}

// late is a store whose clock jumps when a key is put.
type late struct {
	bucket.Store
	by   time.Duration
	from string
	on   bool
}

func (l *late) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	i, err := l.Store.Put(ctx, key, b, c)
	l.on = l.on || key == l.from
	if l.on {
		i.Date = i.Date.Add(l.by)
	}
	return i, err
}

// A push that took longer than half the grace publishes nothing, even if the
// response that carried the time was lost.
func TestTooLong(t *testing.T) {
	for name, through := range map[string]func(bucket.Store) bucket.Store{
		"late": func(s bucket.Store) bucket.Store {
			return &late{Store: s, by: DefaultGrace/2 + time.Hour, from: ReleaseKey(testChannel, 2)}
		},
		"late and no news": func(s bucket.Store) bucket.Store {
			return testbed.Fail(s, testbed.Rule{Op: "put", Prefix: "channels/", Nth: 1, Done: true})
		},
	} {
		p := newPress(t, nil) // its own: leftovers of one case may be objects of another
		p.publish("one")
		r := p.mustOpen(through(p.store))
		c := p.commit(r, r.Segments(p.folder()), []byte("two"))
		c.Started = clock.StoreAt(time.Now())
		if name != "late" {
			c.Started = c.Started.Add(-DefaultGrace/2 - time.Hour)
		}
		if _, err := r.Publisher(p.key).Publish(t.Context(), c); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
		if h, err := p.mustOpen(nil).Head(t.Context(), testChannel); err != nil || h.Number != 1 {
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
}

func TestNoSuchChannel(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		if _, err := p.mustOpen(nil).Head(t.Context(), testChannel); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
}

// TestHaltGivenWhileAReleaseIsStored checks that the halt orders are read after everything else that a publication
// stores: a halt order given at any moment before the head moves keeps it where it is, whichever program publishes.
func TestHaltGivenWhileAReleaseIsStored(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		before := p.publish("before")
		r := p.mustOpen(nil)
		c := p.commit(r, r.Segments(p.folder()), []byte("halted"))
		c.Subject = halt.Subject{Site: "core", Channel: testChannel}
		other := p.mustOpen(nil)
		r.objects.store = &putHook{Store: p.store, part: "/releases/", after: func() {
			if _, err := other.Halts().Put(ctx, p.key, func(o *halt.Orders) error {
				o.Add(halt.Order{ID: halt.NewID(), Scope: halt.Channel, Value: testChannel, At: 1})
				return nil
			}); err != nil {
				t.Error(err)
			}
		}}
		var stopped *halt.Error
		if _, err := r.Publisher(p.key).Publish(ctx, c); !errors.As(err, &stopped) {
			t.Errorf("published under a halt order: %v", err)
		}
		head, err := p.mustOpen(nil).Head(ctx, testChannel)
		if err != nil || head.Number != before.Number {
			t.Errorf("the head is %+v, %v; want release %d", head, err, before.Number)
		}
	})
}

// putHook calls after when an object whose key contains part was stored.
type putHook struct {
	bucket.Store
	part  string
	after func()
}

func (s *putHook) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	info, err := s.Store.Put(ctx, key, body, cond)
	if err == nil && strings.Contains(key, s.part) {
		s.after()
	}
	return info, err
}
