package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// batchBytes bounds the bodies of one report: small, because a slow line holds
// the rest up meanwhile; it fits a message however badly it compresses, and
// holds no more outcomes than wire.MaxReported: each has four bytes at least.
const batchBytes = 192 << 10

// fullWaits is how long to leave a Core alone that cannot commit: so many times
// as it may take to acknowledge, 30 s where nobody says otherwise.
const fullWaits = 2

// ack is what the Core, or the connection, has to say to the sender.
type ack struct {
	upTo, want uint64
	full       bool
	again      bool // the Core is back: what was sent may be lost
}

// sendReports sends what is spooled, one batch after the other, each until it
// is acknowledged. It is the only sender, so the sequence arrives in order.
func (a *agent) sendReports(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(a.o.ReportRate), wire.MaxMessage)
	next := uint64(1) // what is to be sent next
	for {
		first, events, err := a.spool.Batch(ctx, next, batchBytes)
		if err != nil {
			return ended(ctx, err)
		}
		if len(events) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-a.report:
			case k := <-a.acks:
				if next, err = a.acked(ctx, k, next); err != nil {
					return ended(ctx, err)
				}
			}
			continue
		}
		to := a.id.Address()
		b, err := wire.Sign(a.id.key, a.id.Repo, to, wire.VerbReport, first, &wire.Report{Generation: a.spool.Generation(), First: first, Events: events})
		if err != nil {
			return err
		}
		if err := pace.WaitN(ctx, len(b)); err != nil {
			return nil
		}
		if err := away(a.bus.Publish(to.Up(wire.VerbReport), b)); err != nil {
			a.note(Warning, "", "send a report", err)
		}
		if next, err = a.awaitAck(ctx, first, first+uint64(len(events))); err != nil {
			return ended(ctx, err)
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// awaitAck waits for the acknowledgement of the batch [first, end). It returns
// what to send next.
func (a *agent) awaitAck(ctx context.Context, first, end uint64) (uint64, error) {
	late := time.NewTimer(a.o.AckWait)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return first, nil
		case <-late.C:
			return first, nil // once more
		case k := <-a.acks:
			if k.again {
				return first, nil
			}
			if k.full {
				a.note(Warning, "", "the Core cannot commit job data now: it waits in the spool", nil)
				wait := time.NewTimer(fullWaits * a.o.AckWait)
				defer wait.Stop()
				select {
				case <-ctx.Done():
				case <-wait.C:
				}
				return first, nil
			}
			next, err := a.acked(ctx, k, first)
			if err != nil || k.want > 0 || next >= end {
				return next, err
			}
		}
	}
}

// acked forgets what the Core has.
func (a *agent) acked(ctx context.Context, k ack, next uint64) (uint64, error) {
	if k.again || k.full {
		return next, nil
	}
	if k.upTo > 0 {
		if err := a.spool.Acked(ctx, k.upTo); errors.Is(err, spool.ErrFull) {
			a.note(Error, "", "what the Core has committed cannot be forgotten now", err)
		} else if err != nil {
			return next, err
		}
		next = max(next, k.upTo+1)
	}
	if k.want > 0 {
		next = k.want
	}
	return next, nil
}
