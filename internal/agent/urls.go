package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/wire"
)

const (
	// gather is how long an Ask waits for more keys: misses come in crowds.
	gather = 5 * time.Millisecond
	// margin is how long before its end a URL is not used any more: a request
	// that is begun must be answered.
	margin = time.Minute
	// maxLent bounds the URLs that are kept.
	maxLent = 16 << 10
	// maxPrefetch bounds the keys that are asked for ahead of use.
	maxPrefetch = 4 << 10
	// maxHalts bounds the URLs of the halt object that are kept.
	maxHalts = 8
	// refusals is how often the Core may say no, without saying that the object
	// is absent, before that is an error: it may be busy.
	refusals = 3
)

// urls are the reads that the Core has lent. Nothing here is ever logged.
type urls struct {
	send  func(wire.Ask) error // publishes; an error means that the Core is away
	store func() time.Time     // the store's clock
	after time.Duration        // an Ask that is not answered is sent again

	mu     sync.Mutex
	id     uint64
	lent   map[string]lentURL   // but for the halt object
	halts  []lentURL            // of the halt object: the newest is the last, and each before it ends later
	absent map[string]time.Time // what the Core said is not there, and up to when that counts while it is away
	kept   map[string]bool      // keys that were lent ahead of use: not forgotten to make room
	wanted map[string]*wanted
	timer  *time.Timer
	halt   bool // the halt object was lent
}

type lentURL struct {
	url   string
	until time.Time
}

// wanted is a key that somebody waits for, or will.
type wanted struct {
	done   chan struct{} // closed when answered
	asked  bool
	no     int // refusals so far
	url    string
	err    error
	absent bool
}

func newURLs(send func(wire.Ask) error, store func() time.Time, after time.Duration) *urls {
	return &urls{send: send, store: store, after: after, lent: map[string]lentURL{}, wanted: map[string]*wanted{},
		absent: map[string]time.Time{}, kept: map[string]bool{}}
}

// Lend implements bucket.LentOptions.Lend. It waits for the Core as long as ctx
// allows.
func (u *urls) Lend(ctx context.Context, key, expired string) (string, error) {
	for {
		u.mu.Lock()
		if raw := u.usable(key, expired); raw != "" {
			u.mu.Unlock()
			return raw, nil
		}
		w := u.want(key)
		u.mu.Unlock()
		away, err := u.await(ctx, key, w)
		if err != nil {
			return "", err
		}
		if !away {
			if w.absent {
				return "", noSuch(key)
			}
			// An answer is used at least once, whatever our idea of the time says of it: were it asked for again, a wrong
			// clock would ask without end.
			return w.url, w.err
		}
		if u.knownAbsent(key) {
			return "", noSuch(key)
		}
	}
}

// usable returns a URL that may still be used, or "", and forgets what may not. It
// is called with u.mu held.
func (u *urls) usable(key, expired string) string {
	now := u.store()
	over := func(l lentURL) bool { return l.url == expired || !now.Before(l.until) }
	if key == haltKey {
		u.halts = slices.DeleteFunc(u.halts, over)
		if n := len(u.halts); n > 0 {
			return u.halts[n-1].url
		}
		return ""
	}
	if have, ok := u.lent[key]; ok && !over(have) {
		return have.url
	}
	delete(u.lent, key)
	return ""
}

// await waits for an answer. away says that none came in time, and that it was
// asked for again.
func (u *urls) await(ctx context.Context, key string, w *wanted) (away bool, err error) {
	again := time.NewTimer(u.after)
	defer again.Stop()
	select {
	case <-ctx.Done():
		return false, &bucket.Error{Op: "get", Key: key, Kind: bucket.KindOther, Err: context.Cause(ctx)}
	case <-w.done:
		return false, nil
	case <-again.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if w.asked {
		w.asked = false
		u.soon()
	}
	return true, nil
}

func noSuch(key string) error {
	return &bucket.Error{Op: "get", Key: key, Kind: bucket.KindNotExist, Err: fmt.Errorf("no such object: %w", fs.ErrNotExist)}
}

// Prefetch asks for keys that will be read.
func (u *urls) Prefetch(_ context.Context, keys []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.store()
	for _, key := range keys[:min(len(keys), maxPrefetch)] {
		if have, ok := u.lent[key]; !ok || !now.Before(have.until) {
			u.want(key)
		}
	}
}

// want is called with u.mu held, as is soon.
func (u *urls) want(key string) *wanted {
	w := u.wanted[key]
	if w == nil {
		w = &wanted{done: make(chan struct{})}
		u.wanted[key] = w
		u.soon()
	}
	return w
}

func (u *urls) soon() {
	if u.timer == nil {
		u.timer = time.AfterFunc(gather, u.flush)
	}
}

// flush asks for all that was not asked for yet.
func (u *urls) flush() {
	u.mu.Lock()
	u.timer = nil
	var asks []wire.Ask
	for key, w := range u.wanted {
		if w.asked {
			continue
		}
		w.asked = true
		if len(asks) == 0 || len(asks[len(asks)-1].Keys) == wire.MaxAsk {
			u.id++
			asks = append(asks, wire.Ask{ID: u.id})
		}
		last := &asks[len(asks)-1]
		last.Keys = append(last.Keys, key)
	}
	u.mu.Unlock()
	for _, a := range asks {
		if u.send(a) != nil {
			return // away: who waits has it asked again
		}
	}
}

// Again asks anew for all that is not answered: the Core is back.
func (u *urls) Again() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.wanted {
		w.asked = false
	}
	if len(u.wanted) > 0 {
		u.soon()
	}
}

var errNotLent = errors.New("the Core does not lend it")

// Answer takes what the Core has lent.
func (u *urls) Answer(m *wire.URLs) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.store()
	if len(u.lent) > maxLent {
		for key, have := range u.lent {
			if !now.Before(have.until) {
				delete(u.lent, key)
			}
		}
		if len(u.lent) > maxLent {
			maps.DeleteFunc(u.lent, func(key string, _ lentURL) bool { return !u.kept[key] })
		}
	}
	u.takeHalt(m)
	for _, l := range m.Lent {
		// Only what was asked for: else a flood of answers would fill the memory.
		if w := u.wanted[l.Key]; w != nil {
			if l.Key != haltKey {
				u.lent[l.Key] = lentURL{url: l.URL, until: time.Unix(m.Until, 0).Add(-margin)}
			}
			w.url = l.URL
			delete(u.absent, l.Key)
			delete(u.wanted, l.Key)
			close(w.done)
		}
	}
	for _, r := range m.Refused {
		w := u.wanted[r.Key]
		if w == nil {
			continue
		}
		if w.no++; !r.Absent && w.no < refusals {
			if w.no == 1 { // after that, when the wait for it ends
				w.asked = false
				u.soon()
			}
			continue
		}
		if w.absent = r.Absent; w.absent && strings.HasPrefix(r.Key, trustPrefix) {
			u.absent[r.Key] = now.Add(absentFor)
		}
		w.err = &bucket.Error{Op: "get", Key: r.Key, Kind: bucket.KindDenied, Err: fmt.Errorf("%w: %s", errNotLent, r.Why)}
		delete(u.wanted, r.Key)
		close(w.done)
	}
}
