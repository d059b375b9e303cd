package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// newIncarnation makes the service that distinguishes the newer of two Cores from the older one.
func newIncarnation(l *ledger.Ledger, s *storage, n *notices, now func() time.Time) *incarnation.Service {
	return incarnation.New(incarnation.Options{
		Records: l, Now: now,
		Bucket: func() incarnation.Bucket {
			r := s.repo.Load()
			doc, _ := r.Trust().Current()
			return incarnation.Bucket{Store: r.Store(), Repo: r.ID(), Doc: doc, Key: s.keys.Load().release}
		},
		Taken: func(ctx context.Context, number, found, kept uint64) {
			n.incidents.Resolve(kinds.OtherCore, "", wire.Address{}) // of the process before
			detail := fmt.Sprintf("the store had %d, the ledger %d", found, kept)
			if found > kept {
				detail += ": the ledger is a copy from before that start, or the Core was killed while it took the number"
			}
			if err := l.Audit(ctx, ledger.Deed{Who: "core", What: "incarnation", Object: fmt.Sprint(number), Detail: detail}); err != nil {
				n.LedgerFailed(err)
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
