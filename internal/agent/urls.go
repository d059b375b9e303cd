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
	// gather delays an Ask to batch keys: cache misses come in bursts.
	gather = 5 * time.Millisecond
	// margin is how long before its expiry a URL is retired: a request that has
	// started must still be answered.
	margin = time.Minute
	// maxLent bounds the URLs that are kept.
	maxLent = 16 << 10
	// maxPrefetch bounds the keys that are requested ahead of use.
	maxPrefetch = 4 << 10
	// maxHalts bounds the URLs of the halt object that are kept.
	maxHalts = 8
	// refusals is how often the Core may refuse a key, without reporting the
	// object as absent, before that is an error: the Core may be busy.
	refusals = 3
)

// urls holds the presigned URLs lent by the Core. They are never logged.
type urls struct {
	send  func(wire.Ask) error // publishes; an error means that the Core is unreachable
	store func() time.Time     // the store's clock
	after time.Duration        // an unanswered Ask is sent again after this time

	mu     sync.Mutex
	id     uint64
	lent   map[string]presignedURL // except for the halt object
	halts  []haltURLs              // the newest is last, and each one before it expires later
	silent bool                    // the Core is silent: the next trust documents are read without asking it
	absent map[string]time.Time    // absent objects, and how long that is trusted while the Core is unreachable
	kept   map[string]bool         // keys lent ahead of use: never evicted
	wanted map[string]*wanted
	timer  *time.Timer
	halt   bool // the halt object was lent
}

type presignedURL struct {
	url   string
	until time.Time
}

// haltURLs read the halt object, and the trust documents that did not exist when the Core presigned the URLs.
type haltURLs struct {
	presignedURL
	next map[string]string // by key
}

// wanted is a key with a present or future waiter.
type wanted struct {
	done   chan struct{} // closed when answered
	asked  bool
	no     int // refusals so far
	url    string
	err    error
	absent bool
}

func newURLs(send func(wire.Ask) error, store func() time.Time, after time.Duration) *urls {
	return &urls{send: send, store: store, after: after, lent: map[string]presignedURL{}, wanted: map[string]*wanted{},
		absent: map[string]time.Time{}, kept: map[string]bool{}}
}

// Lend implements bucket.LentOptions.Lend. It waits for the Core until ctx
// ends.
func (u *urls) Lend(ctx context.Context, key, expired string) (string, error) {
	for {
		u.mu.Lock()
		raw, absent := u.usableURL(key, expired), false
		if raw == "" && u.silent {
			raw, absent = u.nextURL(key, expired)
		}
		if raw != "" || absent {
			u.mu.Unlock()
			return orAbsent(key, raw)
		}
		w := u.wantKey(key)
		u.mu.Unlock()
		away, err := u.awaitURL(ctx, key, w)
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
		u.mu.Lock()
		raw, absent = u.nextURL(key, expired)
		absent = absent || raw == "" && u.knownAbsent(key)
		u.mu.Unlock()
		if raw != "" || absent {
			return orAbsent(key, raw)
		}
	}
}

// orAbsent returns a URL, or the error for an absent object if it is empty.
func orAbsent(key, raw string) (string, error) {
	if raw == "" {
		return "", noSuch(key)
	}
	return raw, nil
}

// usableURL returns a usable URL, or "", and drops expired ones. The caller holds
// u.mu.
func (u *urls) usableURL(key, expired string) string {
	now := u.store()
	over := func(l presignedURL) bool { return l.url == expired || !now.Before(l.until) }
	if key == haltKey {
		u.halts = slices.DeleteFunc(u.halts, func(h haltURLs) bool { return over(h.presignedURL) })
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

// nextURL returns a URL of a trust document that did not exist when the Core presigned the URL, or "". The URL came
// with one of the halt object, which is dropped if the store refuses it. If the store refuses this one, expired, the
// document is absent: without the right to list, S3 refuses a missing object. The caller holds u.mu.
func (u *urls) nextURL(key, expired string) (raw string, absent bool) {
	now := u.store()
	for _, h := range slices.Backward(u.halts) {
		switch raw := h.next[key]; {
		case raw == "" || !now.Before(h.until):
		case raw == expired:
			return "", true
		default:
			return raw, false
		}
	}
	return "", false
}

// awaitURL waits for an answer. away is true if none arrived in time, as when the Core is unreachable; the key was then
// requested again.
func (u *urls) awaitURL(ctx context.Context, key string, w *wanted) (away bool, err error) {
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
		u.flushSoon()
	}
	return true, nil
}

func noSuch(key string) error {
	return &bucket.Error{Op: "get", Key: key, Kind: bucket.KindNotExist, Err: fmt.Errorf("no such object: %w", fs.ErrNotExist)}
}

// Prefetch requests keys that will be read.
func (u *urls) Prefetch(_ context.Context, keys []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.store()
	for _, key := range keys[:min(len(keys), maxPrefetch)] {
		if have, ok := u.lent[key]; !ok || !now.Before(have.until) {
			u.wantKey(key)
		}
	}
}

// wantKey returns the entry of a key. The caller holds u.mu, also for soon.
func (u *urls) wantKey(key string) *wanted {
	w := u.wanted[key]
	if w == nil {
		w = &wanted{done: make(chan struct{})}
		u.wanted[key] = w
		u.flushSoon()
	}
	return w
}

func (u *urls) flushSoon() {
	if u.timer == nil {
		u.timer = time.AfterFunc(gather, u.requestKeys)
	}
}

// requestKeys requests all keys that are not requested yet.
func (u *urls) requestKeys() {
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
			return // unreachable: waiters request it again
		}
	}
}

// Again requests all unanswered keys again: the Core is reachable again.
func (u *urls) Again() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.wanted {
		w.asked = false
	}
	if len(u.wanted) > 0 {
		u.flushSoon()
	}
}

var errNotLent = errors.New("the Core does not lend it")

// Answer records the URLs that the Core has lent.
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
			maps.DeleteFunc(u.lent, func(key string, _ presignedURL) bool { return !u.kept[key] })
		}
	}
	u.takeHalt(m)
	for _, l := range m.Lent {
		// Accept only requested keys: otherwise a flood of answers would fill the memory.
		if w := u.wanted[l.Key]; w != nil {
			if l.Key != haltKey {
				u.lent[l.Key] = presignedURL{url: l.URL, until: time.Unix(m.Until, 0).Add(-margin)}
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
			if w.no == 1 { // later refusals: when the wait for the key ends
				w.asked = false
				u.flushSoon()
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
