package logfile

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of one message: burst lines at once, then one every refill.
const (
	burst  = 20
	refill = 10 * time.Second
	// maxMessages bounds the buckets that are remembered.
	maxMessages = 4096
)

// Thin returns a handler that passes at most 20 equal messages at once to next,
// and one more every 10 seconds. The next message that passes says in the
// attribute "suppressed" how many did not. Messages are equal if level, text and
// the attributes named in keys are.
func Thin(next slog.Handler, now func() time.Time, keys ...string) slog.Handler {
	return &thin{next, &buckets{now: now, all: map[string]*bucket{}}, keys}
}

type thin struct {
	slog.Handler
	buckets *buckets
	keys    []string
}

// Handle implements slog.Handler.
func (t *thin) Handle(ctx context.Context, r slog.Record) error {
	id := []string{r.Level.String(), r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if slices.Contains(t.keys, a.Key) {
			id = append(id, a.Value.String())
		}
		return true
	})
	pass, suppressed := t.buckets.take(strings.Join(id, "\x00"))
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("suppressed", suppressed))
	}
	return t.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (t *thin) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &thin{t.Handler.WithAttrs(attrs), t.buckets, t.keys}
}

// WithGroup implements slog.Handler.
func (t *thin) WithGroup(name string) slog.Handler {
	return &thin{t.Handler.WithGroup(name), t.buckets, t.keys}
}

type buckets struct {
	now func() time.Time
	mu  sync.Mutex
	all map[string]*bucket
}

type bucket struct {
	tokens     int
	at         time.Time // of the last refill
	suppressed int64
}

func (b *buckets) take(id string) (pass bool, suppressed int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	x := b.all[id]
	if x == nil {
		if len(b.all) >= maxMessages {
			clear(b.all)
		}
		x = &bucket{tokens: burst, at: now}
		b.all[id] = x
	}
	if n := int(now.Sub(x.at) / refill); n > 0 {
		x.tokens, x.at = min(burst, x.tokens+n), x.at.Add(time.Duration(n)*refill)
	} else if n < 0 { // the clock was set back
		x.at = now
	}
	if x.tokens == 0 {
		x.suppressed++
		return false, 0
	}
	x.tokens--
	suppressed, x.suppressed = x.suppressed, 0
	return true, suppressed
}
