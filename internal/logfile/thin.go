package logfile

import (
	"strings"
	"sync"
	"time"
)

// Limits of one message: burst lines at once, then one every refill.
const (
	burst  = 20
	refill = 10 * time.Second
	// maxMessages bounds the number of buckets.
	maxMessages = 4096
)

// Thinner limits how often equal messages pass: 20 at once, then one every 10
// seconds. It is safe for concurrent use.
type Thinner struct {
	now func() time.Time
	mu  sync.Mutex
	all map[string]*bucket
}

type bucket struct {
	tokens     int
	at         time.Time // of the last refill
	suppressed int64
}

// NewThinner returns a Thinner without any history.
func NewThinner(now func() time.Time) *Thinner {
	return &Thinner{now: now, all: map[string]*bucket{}}
}

// Pass reports whether a message passes. Messages are equal if their parts
// are, such as the level, the text and the site. suppressed is the number of
// equal messages since the last one that passed.
func (t *Thinner) Pass(parts ...string) (pass bool, suppressed int64) {
	id := strings.Join(parts, "\x00")
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	x := t.all[id]
	if x == nil {
		if len(t.all) >= maxMessages {
			clear(t.all)
		}
		x = &bucket{tokens: burst, at: now}
		t.all[id] = x
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
