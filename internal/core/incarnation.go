package core

import (
	"context"
	"errors"
	"fmt"

	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// newIncarnation makes the service that tells the newer of two Cores from the older one.
func (c *Core) newIncarnation() *incarnation.Service {
	return incarnation.New(incarnation.Options{
		Records: c.ledger, Now: c.o.Now,
		Bucket: func() incarnation.Bucket {
			r := c.storage.repo.Load()
			doc, _ := r.Trust().Current()
			return incarnation.Bucket{Store: r.Store(), Repo: r.ID(), Doc: doc, Key: c.storage.keys.Load().release}
		},
		Taken: func(ctx context.Context, number, found, kept uint64) {
			c.incidents.Resolve(kinds.OtherCore, "", wire.Address{}) // of the process before
			detail := fmt.Sprintf("the store had %d, the ledger %d", found, kept)
			if found > kept {
				detail += ": the ledger is a copy from before that start, or the Core was killed while it took the number"
			}
			if err := c.ledger.Audit(ctx, ledger.Deed{Who: "core", What: "incarnation", Object: fmt.Sprint(number), Detail: detail}); err != nil {
				c.notices.LedgerFailed(err)
			}
		},
	})
}

// takeIncarnation is part of each look at the store.
func (s *storeWatch) takeIncarnation(ctx context.Context) (taken bool, err error) {
	taken, err = s.incarnation.Take(ctx)
	return taken, s.noteOlder(err)
}

// checkIncarnation returns nil if no other Core has taken over. A Core that has not read the store since
// its start reads it first.
func (s *storeWatch) checkIncarnation(ctx context.Context) error {
	err := s.incarnation.Check(ctx)
	if errors.Is(err, incarnation.ErrNone) {
		if err = s.readStore(ctx); err == nil {
			err = s.incarnation.Check(ctx)
		}
	}
	return s.noteOlder(err)
}

// noteOlder opens an incident and stops the publishes if err is an *incarnation.OlderError. It returns err.
func (s *storeWatch) noteOlder(err error) error {
	if errors.As(err, new(*incarnation.OlderError)) {
		s.notices.incidents.Raise(kinds.OtherCore, "", wire.Address{}, err.Error())
		s.stopPublishing(func(string) error { return err })
	}
	return err
}

// noteRevision handles the newest revision that a site has accepted. If this Core has not issued it, the
// bucket and the ledger were both restored from a backup, or another Core is at work.
func (c *Core) noteRevision(ctx context.Context, a wire.Address, verb string, seen uint64) {
	if seen <= c.desired.Of(a).Revision {
		return
	}
	issued, err := c.ledger.Revision(ctx)
	if err != nil {
		c.notices.LedgerFailed(err)
		return
	}
	if seen <= issued {
		return
	}
	if err := c.incarnation.Followed(wire.IncarnationOf(seen)); err != nil {
		c.refusals.refuseMessage(ctx, message{from: a, verb: verb}, "forged", fmt.Sprintf("it reports revision %d, the newest is %d: %v", seen, issued, err), kinds.Malformed)
	}
}
