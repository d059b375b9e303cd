package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// batchBytes limits the bodies of one report. It is small because a report on a
// slow line delays other messages. A batch fits a message even if it does not
// compress. Each outcome has at least four bytes, so a batch never exceeds
// wire.MaxReported.
const batchBytes = 192 << 10

// fullWaits is the pause after the Core reported that it cannot commit, as a
// multiple of AckWait. With the default AckWait the pause is 30 s.
const fullWaits = 2

// ack is a message from the Core, or from the connection, to the sender.
type ack struct {
	of         []byte // the generation
	upTo, want uint64
	full       bool
	again      bool // the Core is reachable again: sent reports may be lost
}

// sendReports sends the spooled events in batches and waits for each
// acknowledgement. It is the only sender, so the sequence arrives in order.
func (c *session) sendReports(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(c.o.ReportRate), wire.MaxMessage)
	_, next, err := c.spool.Spooled(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	s := sending{next: 1, sent: next - 1}
	for {
		first, events, err := c.spool.Batch(ctx, s.next, batchBytes)
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		if len(events) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-c.report:
			case k := <-c.acks:
				if err = c.removeAcked(ctx, k, &s); err != nil {
					return ignoreEnd(ctx, err)
				}
			}
			continue
		}
		s.next, s.sent = first, max(s.sent, first+uint64(len(events))-1)
		to := c.id.Address()
		b, err := wire.Sign(c.id.key, c.id.Repo, to, wire.VerbReport, first, &wire.Report{Generation: c.spool.Generation(), First: first, Events: events})
		if err != nil {
			return err
		}
		if err := pace.WaitN(ctx, len(b)); err != nil {
			return nil
		}
		if err := dropTransient(c.bus.Publish(to.Up(wire.VerbReport), b)); err != nil {
			c.logNote(Warning, "", "send a report", err)
		}
		if err := c.awaitAck(ctx, first+uint64(len(events)), &s); err != nil {
			return ignoreEnd(ctx, err)
		}
	}
}

// sending is the sender's position.
type sending struct {
	next uint64 // sequence of the next event to send
	sent uint64 // highest sequence that this or an earlier process can have sent
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// awaitAck waits for the acknowledgement of the batch from s.next to before end.
func (c *session) awaitAck(ctx context.Context, end uint64, s *sending) error {
	late := time.NewTimer(c.o.AckWait)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-late.C:
			return nil // send it again
		case k := <-c.acks:
			if k.again {
				return nil
			}
			of := c.spool.Generation()
			if !bytes.Equal(k.of, of) {
				continue
			}
			if k.full {
				c.logNote(Warning, "", "the Core cannot commit job data now: it waits in the spool", nil)
				c.pauseReports(ctx)
				return nil
			}
			err := c.removeAcked(ctx, k, s)
			if err != nil || k.want > 0 || s.next >= end || !bytes.Equal(of, c.spool.Generation()) {
				return err
			}
		}
	}
}

// pauseReports waits before the next report to a Core that cannot commit.
func (c *session) pauseReports(ctx context.Context) {
	wait := time.NewTimer(fullWaits * c.o.AckWait)
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	}
}

// removeAcked removes the events that the Core has committed.
func (c *session) removeAcked(ctx context.Context, k ack, s *sending) error {
	if k.again || k.full || !bytes.Equal(k.of, c.spool.Generation()) {
		return nil
	}
	if k.upTo > s.sent {
		return c.putBack(ctx, k, s)
	}
	if k.upTo > 0 {
		if err := c.spool.Acked(ctx, k.upTo); errors.Is(err, spool.ErrFull) {
			c.logNote(Error, "", "events that the Core has committed cannot be removed from the spool now", err)
		} else if err != nil {
			return err
		}
		s.next = max(s.next, k.upTo+1)
	}
	if k.want > 0 {
		s.next = k.want
	}
	return nil
}

// putBack handles an acknowledgement of events that were never sent: this
// machine was restored to an earlier state. The Core knows the sequences of its
// new events and would take them for repetitions. So putBack numbers the
// spooled events anew.
func (c *session) putBack(ctx context.Context, k ack, s *sending) error {
	c.logNote(Warning, "", fmt.Sprintf("the Core has this site's events up to %d, and only %d were ever sent: this machine was restored to an earlier state. Its events are numbered anew", k.upTo, s.sent), nil)
	err := c.spool.Renumber(ctx)
	if errors.Is(err, spool.ErrFull) {
		c.logNote(Error, "", "the spooled events cannot be numbered anew now", err)
		c.pauseReports(ctx)
		return nil
	}
	if err != nil {
		return err
	}
	*s = sending{next: 1}
	c.hello.wake()
	return nil
}
