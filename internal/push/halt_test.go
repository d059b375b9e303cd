package push

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/halt"
)

// afterPack calls then after the first pack is stored.
type afterPack struct {
	bucket.Store
	then func()
	n    atomic.Int64
}

func (a *afterPack) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	info, err := a.Store.Put(ctx, key, b, c)
	if strings.HasPrefix(key, "packs/") {
		a.n.Add(1)
		a.then()
	}
	return info, err
}

// TestPain14_PushStopsMidway: a halt order that arrives during a push ends it
// before everything is stored, and nothing is published.
func TestPain14_PushStopsMidway(t *testing.T) {
	g := newRig(t, nil)
	for i := range uint64(10) {
		g.write("f"+string(rune('0'+i)), noise(i, 12<<20))
	}
	var ahead atomic.Int64
	s := &afterPack{Store: g.store, then: sync.OnceFunc(func() {
		_, err := g.open(g.store).Halts().Put(t.Context(), g.key, func(o *halt.Orders) error {
			o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test"})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		ahead.Store(int64(time.Minute))
	})}
	_, err := g.pushTo(t.Context(), s, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	if stop := (*halt.Error)(nil); !errors.As(err, &stop) {
		t.Fatal(err)
	}
	if n := s.n.Load(); n >= 8 {
		t.Errorf("%d packs were stored", n)
	}
}
