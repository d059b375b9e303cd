package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/wire"
)

const (
	haltKey = "halt"
	// haltWait is how long one read of the halt object may take.
	haltWait = 3 * time.Second
	// unreadable is how often in a row it may fail.
	unreadable = 2
)

// errBlind stops what moves although no order could stop it.
var errBlind = errors.New("neither the Core nor the store's orders to stop can be read")

// second is the second path of the kill switch.
type second struct {
	fails  int
	read   time.Time // when the halt object was last asked for
	asked  time.Time // when the Core was last asked for a sign of life
	rested time.Time // when nothing moved last
}

// watchStore reads the halt object from the store while content moves and the
// Core says nothing. Where that fails twice, all stops until one of the two is
// back: content must not move that nobody could stop.
func (a *agent) watchStore(ctx context.Context) error {
	var s second
	return a.each(ctx, max(a.o.HaltEvery/20, 10*time.Millisecond), func() { a.lookBeyond(ctx, &s) })
}

func (a *agent) lookBeyond(ctx context.Context, s *second) {
	now := a.o.Now()
	a.mu.Lock()
	blind, heard, idle := a.blind != nil, a.heard, !a.transfers()
	a.mu.Unlock()
	if idle && !blind {
		*s = second{rested: now}
		return
	}
	if heard.Before(s.rested) {
		heard = s.rested // an idle Core has nothing to say
	}
	silent := now.Sub(heard)
	if silent < a.o.HaltEvery {
		s.fails = 0
		a.see(ctx)
		if silent >= a.o.HaltEvery/2 && now.Sub(s.asked) >= a.o.HaltEvery/4 {
			s.asked = now
			if err := a.sayBeat(ctx, false); err != nil {
				a.note(Warning, "", "ask the Core for a sign of life", err)
			}
		}
		return
	}
	if now.Sub(s.read) < a.o.HaltEvery || !a.urls.HaltLent() {
		return // nothing can move through URLs that were never lent
	}
	s.read = now
	err := a.readHalts(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		s.fails = 0
		a.see(ctx)
		return
	}
	s.fails++
	a.note(Warning, "", fmt.Sprintf("the Core is silent, and the orders to stop in the store cannot be read (%d)", s.fails), err)
	if s.fails >= unreadable && !blind {
		a.goBlind(ctx, err)
	}
}

// transfers reports whether content moves. It is called with a.mu held.
func (a *agent) transfers() bool {
	for _, j := range a.running {
		if !j.ahead && !j.scrub {
			return true
		}
	}
	return false
}

func (a *agent) readHalts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, haltWait)
	defer cancel()
	body, _, err := a.store.Get(ctx, haltKey, 0, -1)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(body, halt.Max+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	epoch, err := a.takeHalts(context.WithoutCancel(ctx), b)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if epoch < a.newest {
		// Who puts an old object back keeps newer orders from being read.
		return fmt.Errorf("the store's orders to stop are of epoch %d, and epoch %d was seen here", epoch, a.newest)
	}
	return nil
}

// goBlind stops everything.
func (a *agent) goBlind(ctx context.Context, cause error) {
	err := fmt.Errorf("%w: %w", errBlind, cause)
	a.mu.Lock()
	a.blind = err
	for _, j := range a.running {
		j.stop(err)
	}
	a.mu.Unlock()
	text := fmt.Sprintf("all has stopped: %v; it goes on when one of them is back", err)
	if err := a.problem(ctx, ProblemStore, "", text); err != nil {
		a.note(Error, "", "a problem cannot be kept: "+text, err)
	}
}

// see lets what goBlind has stopped go on.
func (a *agent) see(ctx context.Context) {
	a.mu.Lock()
	blind := a.blind != nil
	a.blind = nil
	a.mu.Unlock()
	if !blind {
		return
	}
	a.note(Info, "", "orders to stop can be read again", nil)
	if err := a.over(ctx, ProblemStore, ""); err != nil {
		a.note(Error, "", "the end of a problem cannot be kept", err)
	}
	a.work.wake()
}

// HaltLent reports whether the halt object was ever lent.
func (u *urls) HaltLent() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.halt
}

// takeHalt keeps the URL of the halt object, which comes unasked. It is the first
// to be used: of an older one that ends later, the credential may be gone by now.
// But the content that came with that one may still be read, so it is kept as well.
// It is called with u.mu held.
func (u *urls) takeHalt(m *wire.URLs) {
	for _, l := range m.Lent {
		if l.Key == haltKey {
			u.keepHalt(lentURL{url: l.URL, until: time.Unix(m.Until, 0)}) // to its end: no other URL lasts longer
		}
	}
}

// keepHalt is called with u.mu held.
func (u *urls) keepHalt(l lentURL) {
	u.halts = append(slices.DeleteFunc(u.halts, func(h lentURL) bool { return !h.until.After(l.until) }), l)
	u.halts = u.halts[max(0, len(u.halts)-maxHalts):]
	u.halt = true
}

// haltFor returns the URL of the halt object to keep for content that may be read
// until then: the newest that lasts as long. It is called with u.mu held.
func (u *urls) haltFor(until time.Time) (l lentURL, ok bool) {
	for _, l = range slices.Backward(u.halts) {
		if !l.until.Before(until) {
			break
		}
	}
	return l, len(u.halts) > 0
}
