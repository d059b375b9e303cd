package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/halting"
	"nightferry/internal/heads"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// storeWatch reads what others have changed in the store. It owns how the last look
// ended.
type storeWatch struct {
	settings *atomic.Pointer[Settings]
	storage  *storage
	newest   *heads.Service
	halting  *halting.Service
	desired  *desired.Service
	notices  *notices
	clock    *clocks
	desire   func(context.Context, desired.Change) error
	restate  func(context.Context) // sends all sites their desired states again
	looked   looked

	incarnation    *incarnation.Service
	stopPublishing func(why func(channel string) error)
}

// readStore reads what others may have changed in the store: trust, halts, heads;
// and the store's clock.
func (s *storeWatch) readStore(ctx context.Context) error {
	err := s.lookOnce(ctx)
	if ctx.Err() != nil {
		return err
	}
	s.looked.noteLook(err, s.clock.now())
	local := localFault(err)
	switch {
	case err == nil || local:
		s.notices.incidents.Resolve(kinds.Store, "", wire.Address{})
	default:
		s.notices.incidents.Raise(kinds.Store, "", wire.Address{}, fmt.Sprintf("the store: %v; sites keep their releases", err))
		s.notices.ReportFailure("store", err)
	}
	if local {
		s.notices.ReportFailure("state", err)
	} else if err == nil {
		s.notices.ReportSuccess("state")
	}
	return err
}

// localFault reports whether nothing but the Core's own disk has failed.
func localFault(err error) bool {
	var remote *bucket.Error
	if errors.As(err, &remote) {
		return false
	}
	var call syscall.Errno
	if errors.As(err, &call) {
		return true
	}
	return slices.ContainsFunc([]error{durable.ErrNotRegular, durable.ErrLink, durable.ErrUntrusted, ledger.ErrFull}, func(e error) bool { return errors.Is(err, e) })
}

func (s *storeWatch) lookOnce(ctx context.Context) error {
	if err := s.probeStore(ctx); err != nil {
		return err
	}
	r, unkept := s.storage.reopenRepository(ctx, s.storage.store.Load(), s.storage.keys.Load())
	if r == nil {
		return unkept
	}
	s.storage.repo.Store(r)
	if err := mayControl(r, s.storage.keys.Load().release); err != nil {
		return fmt.Errorf("sites refuse messages of this Core: %w", err)
	}
	if err := errors.Join(s.halting.Look(ctx), unkept); err != nil {
		return err
	}
	var channels []string
	for _, ch := range s.settings.Load().Fleet.Channels {
		channels = append(channels, ch.Name)
	}
	news, known, unread := s.newest.ImportAll(ctx, channels)
	errs := []error{unread}
	taken, err := s.takeIncarnation(ctx) // last: its revisions state the newest releases
	if s.incarnation.Older() == nil {
		errs = append(errs, err)
	}
	if taken || news || s.desired.Behind() {
		errs = append(errs, s.desire(ctx, desired.Change{}))
	}
	if known && !taken {
		s.restate(ctx)
	}
	return errors.Join(errs...)
}

// looked is how the last look at the store ended.
type looked struct {
	mu   sync.Mutex
	read time.Time // of the last that worked
	err  error     // of the last
}

func (l *looked) noteLook(err error, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err == nil {
		l.read = now
	}
}

// lastLook returns when the store was read last, and why it was not since.
func (l *looked) lastLook() (read time.Time, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		why = l.err.Error()
	case l.read.IsZero():
		why = "it has not answered yet"
	}
	return l.read, why
}

// probeTime bounds the first request of a look: a store that says nothing must
// not hold up the looks after it is back.
const probeTime = 10 * time.Second

// probeStore compares the clocks, and so finds whether the store answers.
func (s *storeWatch) probeStore(ctx context.Context) error {
	pctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := s.clock.compareClocks(pctx)
	if err != nil && pctx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("it has not answered within %s: %w", probeTime, err)
	}
	return err
}
