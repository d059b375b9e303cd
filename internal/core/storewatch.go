package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/desired"
	"nightferry/internal/durable"
	"nightferry/internal/halting"
	"nightferry/internal/incarnation"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// newest is each channel's newest release, as the ledger has it.
type newest struct {
	mu   sync.RWMutex
	all  map[string]ledger.Release
	read map[string]bool // channels whose head was read since the start
}

// isRead reports whether a channel's head was read since the start. Until then the ledger may be a
// restored copy that lacks the channel's newest releases.
func (n *newest) isRead(channel string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.read[channel]
}

// markRead notes that a channel's head was read.
func (n *newest) markRead(channel string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.read == nil {
		n.read = map[string]bool{}
	}
	n.read[channel] = true
}

func (n *newest) Of(channel string) (ledger.Release, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r, ok := n.all[channel]
	return r, ok
}

func (n *newest) List() []ledger.Release {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]ledger.Release, 0, len(n.all))
	for _, r := range n.all {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ledger.Release) int { return cmp.Compare(a.Channel, b.Channel) })
	return out
}

// putRelease notes a release and reports whether it is news.
func (n *newest) putRelease(r ledger.Release) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]ledger.Release{}
	}
	if old, ok := n.all[r.Channel]; ok && old.Number >= r.Number {
		return false
	}
	n.all[r.Channel] = r
	return true
}

// storeWatch reads what others have changed in the store. It owns how the last look
// ended.
type storeWatch struct {
	settings *atomic.Pointer[Settings]
	ledger   releaseRecords
	storage  *storage
	newest   *newest
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

// releaseRecords keeps releases. *ledger.Ledger is one.
type releaseRecords interface {
	AddRelease(ctx context.Context, r ledger.Release) error
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
	news, known, unread := s.importReleases(ctx)
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

// importReleases enters the head of each channel into the ledger, if it is news. known reports that a channel's
// head was read for the first time since the start. Sites keep their desired release of the other channels. One
// damaged head does not withhold the other channels.
func (s *storeWatch) importReleases(ctx context.Context) (news, known bool, err error) {
	var errs []error
	for _, ch := range s.settings.Load().Fleet.Channels {
		before := s.newest.isRead(ch.Name)
		fresh, err := s.importRelease(ctx, ch.Name, ledger.RunID{})
		if err != nil {
			err = fmt.Errorf("channel %s: %w", ch.Name, err)
		}
		now := s.newest.isRead(ch.Name)
		switch {
		case now:
			s.notices.incidents.Resolve(kinds.Behind, ch.Name, wire.Address{})
		case ctx.Err() == nil:
			s.notices.incidents.Raise(kinds.Behind, ch.Name, wire.Address{}, fmt.Sprintf("%v. The head was not read since this Core started: sites keep their desired release of the channel, and get no newer one", err))
		}
		news, known = news || fresh, known || now && !before
		errs = append(errs, err)
	}
	return news, known, errors.Join(errs...)
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

// importRelease enters a channel's head into the ledger, if it is news.
func (s *storeWatch) importRelease(ctx context.Context, channel string, run ledger.RunID) (news bool, err error) {
	r := s.storage.repo.Load()
	defer func() {
		if err == nil {
			s.newest.markRead(channel)
		}
	}()
	h, err := r.Head(ctx, channel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if have, ok := s.newest.Of(channel); ok && have.Number >= h.Number {
		return false, nil
	}
	rel, err := r.Release(ctx, channel, h.Number, h.Release)
	if err != nil {
		return false, err
	}
	s.adoptBetween(ctx, r, channel, h.Number)
	e := s.releaseEntry(channel, rel)
	e.Run = run
	if err := s.ledger.AddRelease(ctx, e); err != nil && !errors.Is(err, ledger.ErrConflict) {
		return false, err
	}
	if !s.newest.putRelease(e) {
		return false, nil
	}
	s.notices.emitEvent(Event{Kind: Released, Channel: channel, Text: fmt.Sprintf("release %d", h.Number)})
	return true, nil
}

// maxBetween bounds how many releases are looked up that the ledger missed.
const maxBetween = 64

// adoptBetween enters releases that the ledger has missed, as far as they are
// still there: it is a restored backup, and sites may yet attest them.
func (s *storeWatch) adoptBetween(ctx context.Context, r *repo.Repo, channel string, head trust.ReleaseNumber) {
	have, ok := s.newest.Of(channel)
	if !ok {
		return
	}
	first := have.Number + 1
	if head > maxBetween {
		first = max(first, head-maxBetween)
	}
	for n := first; n < head; n++ {
		if rel, err := r.Release(ctx, channel, n, trust.ReleaseDigest{}); err == nil {
			_ = s.ledger.AddRelease(ctx, s.releaseEntry(channel, rel)) // the newest one is what counts
		}
	}
}

func (s *storeWatch) releaseEntry(channel string, rel *repo.Release) ledger.Release {
	e := ledger.Release{Channel: channel, Number: rel.Number, Digest: rel.Digest, Tree: rel.Tree, Files: rel.Totals.Files, Bytes: rel.Totals.Bytes, Published: s.clock.motion.At(unixTime(rel.Created))}
	if e.Number > 1 {
		e.Parent = e.Number - 1
	}
	return e
}
