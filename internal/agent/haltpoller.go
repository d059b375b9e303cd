package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/wire"
)

const (
	haltKey = "halt"
	// haltWait is the time limit for one read of the halt object.
	haltWait = 3 * time.Second
	// trustWait is how much longer the trust documents may take that the halt object needs. With it, an agent still
	// stops within 25 s, even if its first read fails.
	trustWait = time.Second
	// unreadable is the number of consecutive failed reads after which everything stops.
	unreadable = 2
)

// errNoHaltPath stops all movement because no halt order could arrive.
var errNoHaltPath = errors.New("neither the Core nor the store's orders to stop can be read")

// haltPoller is the second path of the kill switch.
type haltPoller struct {
	fails  int
	read   time.Time // time of the last read of the halt object
	asked  time.Time // time of the last request for a sign of life from the Core
	rested time.Time // last time when there was nothing to stop or to lift
}

// pollHalts reads the halt object from the store while the Core is silent and
// content moves, or a halt order stops it. The store's halt orders also lift
// earlier ones. If content moves and two reads fail, everything stops until the
// Core or the store is back: content must not move if nothing could stop it.
func (h *haltState) pollHalts(ctx context.Context) error {
	var p haltPoller
	return everyPeriod(ctx, max(h.s.o.HaltEvery/20, 10*time.Millisecond), func() { h.pollHalt(ctx, &p) })
}

func (h *haltState) pollHalt(ctx context.Context, p *haltPoller) {
	now := h.s.o.Now()
	h.mu.Lock()
	stopped, heard, moves, held := h.failSafe != nil, h.heard, h.isTransferring(), h.isHeld()
	h.mu.Unlock()
	if !moves && !held && !stopped {
		*p = haltPoller{rested: now}
		h.urls.setSilent(false)
		return
	}
	if heard.Before(p.rested) {
		heard = p.rested // an idle Core has nothing to send
	}
	silent := now.Sub(heard)
	h.urls.setSilent(silent >= h.s.o.HaltEvery)
	if silent < h.s.o.HaltEvery {
		p.fails = 0
		h.leaveFailSafe(ctx)
		if held {
			h.urls.wantHalt()
		}
		if silent >= h.s.o.HaltEvery/2 && now.Sub(p.asked) >= h.s.o.HaltEvery/4 {
			p.asked = now
			if err := h.beat(ctx); err != nil {
				h.s.logNote(Warning, "", "ask the Core for a sign of life", err)
			}
		}
		return
	}
	if now.Sub(p.read) < h.s.o.HaltEvery || !h.urls.HasHaltURL() {
		return // nothing can move through URLs that were never lent
	}
	p.read = now
	err := h.readStoreHalts(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		p.fails = 0
		h.leaveFailSafe(ctx)
		return
	}
	p.fails++
	h.s.logNote(Warning, "", fmt.Sprintf("the Core is silent, and the orders to stop in the store cannot be read (%d)", p.fails), err)
	if moves && p.fails >= unreadable && !stopped {
		h.enterFailSafe(ctx, err)
	}
}

// isTransferring reports whether content moves. The caller holds h.mu.
func (h *haltState) isTransferring() bool {
	for _, j := range h.jobs {
		if j.movesContent() {
			return true
		}
	}
	return false
}

// isHeld reports whether a halt order that the store may lift stops a channel
// here. The caller holds h.mu.
func (h *haltState) isHeld() bool {
	for id := range h.stops {
		if !id.IsZero() {
			return true
		}
	}
	return false
}

// noteAlive records the time of a message that states the Core's present state. A
// replayed message proves nothing: its time is not newer than the last one, or
// is far in the past by the store's clock.
func (h *haltState) noteAlive(at int64) {
	now := h.s.o.Now()
	if h.s.storeClock.known.Load() && h.s.storeNow().Sub(time.UnixMilli(at)) > staleState {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if at > h.proved {
		h.proved, h.heard = at, now
	}
}

// staleState is the maximum age of a message, by the store's clock, that proves
// a live Core. Both times are by the store's clock, to the second.
const staleState = time.Minute

func (h *haltState) readStoreHalts(ctx context.Context) error {
	all, cancel := context.WithTimeout(ctx, haltWait+trustWait)
	defer cancel()
	first, done := context.WithTimeout(all, haltWait)
	b, err := readWhole(first, h.store, haltKey, halt.Max)
	done()
	if err == nil {
		err = h.followTrust(all, b)
	}
	if err != nil {
		return err
	}
	epoch, err := h.takeHalts(context.WithoutCancel(ctx), b)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if epoch < h.newest {
		// An old object that was put back hides newer halt orders.
		return fmt.Errorf("the store's orders to stop are of epoch %d, and epoch %d was seen here", epoch, h.newest)
	}
	return nil
}

// readWhole reads an object. It returns one byte more than most if the object is larger.
func readWhole(ctx context.Context, s bucket.Store, key string, most int64) ([]byte, error) {
	body, _, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	return b, errors.Join(err, body.Close())
}

// enterFailSafe stops everything.
func (h *haltState) enterFailSafe(ctx context.Context, cause error) {
	err := fmt.Errorf("%w: %w", errNoHaltPath, cause)
	h.mu.Lock()
	h.failSafe = err
	for _, j := range h.jobs {
		j.stop(err)
	}
	h.mu.Unlock()
	text := fmt.Sprintf("all has stopped: %v; it continues when one of them is back", err)
	if err := h.s.reportProblem(ctx, ProblemStore, "", text); err != nil {
		h.s.logNote(Error, "", "a problem cannot be kept: "+text, err)
	}
}

// leaveFailSafe lets the stopped channels continue.
func (h *haltState) leaveFailSafe(ctx context.Context) {
	h.mu.Lock()
	stopped := h.failSafe != nil
	h.failSafe = nil
	h.mu.Unlock()
	if !stopped {
		return
	}
	h.s.logNote(Info, "", "orders to stop can be read again", nil)
	if err := h.s.resolveProblem(ctx, ProblemStore, ""); err != nil {
		h.s.logNote(Error, "", "the end of a problem cannot be kept", err)
	}
	h.work.wake()
}

// haltAhead is how long before its expiry the agent renews the URL of the halt
// object while a halt order stops this site.
const haltAhead = 30 * time.Minute

// wantHalt requests the URL of the halt object if none lasts long enough. A
// stopped site requests no content, so the URL does not arrive with content.
func (u *urls) wantHalt() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.halts); n == 0 || u.halts[n-1].until.Sub(u.store()) < haltAhead {
		u.wantKey(haltKey)
	}
}

// setSilent notes whether the Core is silent.
func (u *urls) setSilent(yes bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = yes
}

// hasNext reports whether a trust document can be read without the Core, if it exists.
func (u *urls) hasNext(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	raw, _ := u.nextURL(key, "")
	return raw != ""
}

// HasHaltURL reports whether the halt object was ever lent.
func (u *urls) HasHaltURL() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.halt
}

// takeHalt keeps the URL of the halt object, and those of the next trust documents,
// which arrive unrequested. The newest
// URL is used first: the credential of an older one may have been revoked before it
// expires. Content lent with the older URL may still be readable, so that URL is
// kept as well. The caller holds u.mu.
func (u *urls) takeHalt(m *wire.URLs) {
	for _, l := range m.Lent {
		if l.Key == haltKey {
			next := map[string]string{}
			for _, t := range m.Next[:min(len(m.Next), wire.MaxNext)] {
				next[t.Key] = t.URL
			}
			u.keepHalt(haltURLs{presignedURL{url: l.URL, until: time.Unix(m.Until, 0)}, next}) // until it expires: no other URL lasts longer
		}
	}
}

// keepHalt adds URLs. The caller holds u.mu.
func (u *urls) keepHalt(l haltURLs) {
	u.halts = append(slices.DeleteFunc(u.halts, func(h haltURLs) bool { return !h.until.After(l.until) }), l)
	u.halts = u.halts[max(0, len(u.halts)-maxHalts):]
	u.halt = true
}

// haltFor returns the URLs of the halt object to keep for content that is readable
// until the given time: the newest that last as long. The caller holds u.mu.
func (u *urls) haltFor(until time.Time) (l haltURLs, ok bool) {
	for _, l = range slices.Backward(u.halts) {
		if !l.until.Before(until) {
			break
		}
	}
	return l, len(u.halts) > 0
}
