package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// The first and the longest wait before a confirmation that the Core has not
// acknowledged is sent again; it doubles between the two.
const (
	confirmFirst = 250 * time.Millisecond
	confirmMax   = 30 * time.Second
)

// confirmations is the site's answer to halt orders, which is sent until the
// Core has acknowledged it.
type confirmations struct {
	changed signal // what is obeyed may have changed
	again   signal // the Core may have forgotten it: it was away

	said string // what was last made durable; of one goroutine

	mu     sync.Mutex
	number uint64 // of the newest message
	acked  uint64 // the newest that the Core has acknowledged
	want   bool   // the Core has asked for the halt object
}

// newConfirmations begins at a number that no earlier process has used: an
// acknowledgement that was recorded then acknowledges nothing.
func newConfirmations(now time.Time) *confirmations {
	return &confirmations{changed: make(signal, 1), again: make(signal, 1), number: uint64(now.UnixNano())}
}

// handleConfirmed takes the Core's acknowledgement.
func (c *confirmations) handleConfirmed(v *wire.Confirmed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.Number != c.number {
		return // of an older message
	}
	c.acked, c.want = v.Number, v.Want
	if v.Want {
		c.again.wake()
	}
}

// nextMessage begins another message, or none while the newest is acknowledged.
func (c *confirmations) nextMessage(news bool) (number uint64, withObject, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if news {
		c.number++
	}
	return c.number, c.want, c.number != c.acked
}

// confirmHalts sends what this site obeys, after each change and whenever the
// Core may have forgotten it, until the Core has acknowledged it.
func (h *haltState) confirmHalts(ctx context.Context) error {
	wait := confirmFirst
	for {
		t := time.NewTimer(wait)
		again := false
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-h.answers.changed:
			wait = confirmFirst
		case <-h.answers.again:
			wait, again = confirmFirst, true
		case <-t.C:
			wait = min(2*wait, confirmMax)
		}
		t.Stop()
		h.sendStopped(ctx, again)
	}
}

// sendStopped sends what is obeyed, if it is news or not acknowledged yet. It is
// durable first: the proof of a stop must not change with a restart.
func (h *haltState) sendStopped(ctx context.Context, again bool) {
	m, object := h.obeyedOrders()
	b, err := wire.Encode(&m)
	if err != nil {
		h.s.logNote(Error, "", "that this site has stopped cannot be encoded", err)
		return
	}
	news := string(b) != h.answers.said
	if news {
		if err := h.s.spool.Keep(ctx, spool.Stops, spool.Numbered{Number: m.Epoch, Object: b}); err != nil {
			if ctx.Err() != nil {
				return // the agent ends
			}
			h.s.logNote(Error, "", "that this site has stopped cannot be kept", err)
		}
		h.answers.said = string(b)
		h.confirmLocal(m.Orders)
	}
	number, withObject, due := h.answers.nextMessage(news || again)
	if !due {
		return
	}
	if m.Number, m.Instance = number, h.s.instance; withObject {
		m.Object = object
	}
	addAges(h, m.Orders)
	h.s.trySend(wire.VerbStopped, &m)
}

// addAges adds how long ago this process has stopped, which needs no comparison of clocks.
func addAges(h *haltState, list []wire.Stop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.s.o.Now()
	for i := range list {
		if s := h.stops[list[i].Order]; s != nil && !s.still.IsZero() {
			list[i].Ago = max(0, now.Sub(s.still).Milliseconds())
		}
	}
}

// obeyedOrders returns the orders that are obeyed by now, the one given on the site
// first, then the newest, and the object that the Core's came in.
func (h *haltState) obeyedOrders() (wire.Stopped, []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := wire.Stopped{Epoch: h.epoch}
	for _, s := range h.stops {
		if s.At > 0 && (s.Order.IsZero() || !h.unkept) {
			m.Orders = append(m.Orders, s.Stop)
		}
	}
	slices.SortFunc(m.Orders, func(x, y wire.Stop) int {
		if x.Order.IsZero() != y.Order.IsZero() {
			if x.Order.IsZero() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(y.Heard, x.Heard), x.Order.Compare(y.Order))
	})
	m.Orders = m.Orders[:min(len(m.Orders), wire.MaxStops)]
	return m, h.object
}
