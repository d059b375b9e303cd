// Package lending presigns URLs for sites. A site holds no credential of the
// store: it requests a URL for each object, and gets one only if its own releases
// need the object.
//
// Service answers in the background, because finding the packs of a release is
// slow and must not delay the messages of other sites. It bounds the requests of
// one site, so that no site delays the others.
package lending

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/frame"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/nights"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// Ledger knows which releases a site holds and moves. *ledger.Ledger is one.
type Ledger interface {
	Holdings(ctx context.Context, f ledger.Filter) ([]ledger.Holding, error)
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
	Release(ctx context.Context, channel string, number trust.ReleaseNumber) (ledger.Release, error)
	Releases(ctx context.Context, channel string, n int) ([]ledger.Release, error)
}

// Store signs URLs and reads objects.
type Store interface {
	PresignGet(ctx context.Context, key string, now time.Time, life time.Duration) (url string, until time.Time, err error)
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error)
}

// Trees reads releases. *releases.Reader is one.
type Trees interface {
	EntriesOf(ctx context.Context, r *repo.Repo, k releases.Key) (*repo.Release, manifest.Next, error)
	Refs(ctx context.Context, r *repo.Repo, e *manifest.Entry) ([]chunk.Ref, error)
}

// Site is what the Core states to a site, and knows of it.
type Site struct {
	Desired  []wire.Desired
	Enrolled time.Time // zero: it has no identity
}

// Notices report what a Service finds.
type Notices interface {
	Foreign(ctx context.Context, a wire.Address, keys []string) // requested keys that the site's releases do not need
	Overrun()                                                   // a request was dropped
	ReportFailure(what string, err error)                       // a failure that the site tries again
	LedgerFailed(err error)
}

// Options of a Service. All are required.
type Options struct {
	Ledger  Ledger
	Trees   Trees
	Notices Notices
	Now     func() time.Time                    // the store's, by which URLs end
	Wall    func() time.Time                    // the calendar's, by which windows open
	Real    func(d time.Duration) time.Duration // how long a duration of the calendar takes

	Repo     func() *repo.Repo
	Store    func() Store
	Fleet    func() (*fleet.Fleet, *nights.Table)
	Site     func(a wire.Address) Site
	Newest   func(channel string) (ledger.Release, bool)
	Segments func() (*durable.Root, error) // opens the folder for copies of the index's segments
	Send     func(a wire.Address, u *wire.URLs) error
	Guard    func(a wire.Address, handle func()) // contains a panic of handle
}

const (
	// maxAsks bounds the waiting requests of one site. It covers all that two runs request ahead of
	// use. Further requests are dropped, and the site sends them again.
	maxAsks = 32
	// At most siteAsks requests of one site, and allAsks of all sites, are answered at once.
	siteAsks, allAsks = 4, 16
)

// Service is safe for concurrent use.
type Service struct {
	o     Options
	packs releasePacks
	turns chan struct{} // of all sites
	lent  atomic.Int64
	wait  sync.WaitGroup

	mu     sync.Mutex
	queues map[wire.Address]*queue // of sites with requests
}

// queue holds the requests of one site.
type queue struct {
	waiting int // also those that are being answered
	turns   chan struct{}
}

// New returns a Service.
func New(o Options) *Service {
	return &Service{o: o, packs: releasePacks{o: &o}, turns: make(chan struct{}, allAsks), queues: map[wire.Address]*queue{}}
}

// Lent returns how many URLs were presigned.
func (s *Service) Lent() int64 { return s.lent.Load() }

// Forget drops what is known of releases that keep does not name.
func (s *Service) Forget(keep func(channel string, number trust.ReleaseNumber) bool) {
	s.packs.forgetReleases(keep)
}

// Wait returns when no request is being answered. No Ask may follow.
func (s *Service) Wait() { s.wait.Wait() }

// Ask answers a request of a site in its own goroutine. The error is about the
// request itself.
func (s *Service) Ask(ctx context.Context, a wire.Address, v *wire.Ask) error {
	if len(v.Keys) > wire.MaxAsk {
		return fmt.Errorf("it asks for %d objects, at most %d at once: %w", len(v.Keys), wire.MaxAsk, frame.ErrDamaged)
	}
	q := s.enterQueue(a)
	if q == nil {
		s.o.Notices.Overrun()
		return nil
	}
	s.wait.Go(func() {
		defer s.leaveQueue(a, q)
		for _, turn := range []chan struct{}{q.turns, s.turns} { // the site's own first: while it waits for that, it holds none of the shared ones
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-ctx.Done():
				return
			}
		}
		s.o.Guard(a, func() { s.handleRequest(ctx, a, v) })
	})
	return nil
}

// enterQueue counts one more request of a site. It returns nil if there are too many.
func (s *Service) enterQueue(a wire.Address) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[a]
	if q == nil {
		q = &queue{turns: make(chan struct{}, siteAsks)}
		s.queues[a] = q
	}
	if q.waiting >= maxAsks {
		return nil
	}
	q.waiting++
	return q
}

func (s *Service) leaveQueue(a wire.Address, q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.waiting--; q.waiting == 0 {
		delete(s.queues, a)
	}
}

// minLife is the minimum life of a presigned URL, unless its credential ends earlier. It lets a
// site finish a run if the Core stops. If a window of the site ends later, the URL lives until
// lifeAfterWindow after that end, so that the window can open without the Core. It never lives longer
// than [bucket.MaxPresign].
const (
	minLife         = 24 * time.Hour
	lifeAfterWindow = time.Hour
)

// urlLife returns the life of URLs that are presigned for a site now.
func (s *Service) urlLife(a wire.Address) time.Duration {
	f, table := s.o.Fleet()
	site, now, life := f.Site(a.Site), s.o.Wall(), minLife
	if site == nil {
		return life
	}
	for _, p := range site.Placements {
		rule, ok := table.Rule(site.Name, p.Channel)
		if !ok {
			continue // it may move at any time
		}
		w, ok := window.Open(now, table.Place(site.Name), rule)
		if !ok {
			w, ok = window.Next(now, table.Place(site.Name), rule)
		}
		if ok {
			life = max(life, s.o.Real(w.End.Sub(now))+lifeAfterWindow)
		}
	}
	return min(life, bucket.MaxPresign)
}

// handleRequest presigns a URL for every key that the site's releases need, and refuses the others.
func (s *Service) handleRequest(ctx context.Context, a wire.Address, v *wire.Ask) {
	now, life := s.o.Now(), s.urlLife(a)
	out := wire.URLs{ID: v.ID, Until: now.Add(life).Unix()}
	store := s.o.Store()
	// All URLs get the earliest expiry, since a credential may end sooner.
	presign := func(key string) (string, error) {
		raw, until, err := store.PresignGet(ctx, key, now, life)
		if err == nil {
			out.Until = min(out.Until, until.Unix())
		}
		return raw, err
	}
	var foreign []string
	var list []releases.Key
	for _, key := range v.Keys {
		if list == nil {
			list = s.readableReleases(ctx, a)
		}
		absent, err := s.mayRead(ctx, a, list, key)
		var url string
		if err == nil && !absent {
			url, err = presign(key)
		}
		switch {
		case absent:
			out.Refused = append(out.Refused, wire.Refused{Key: key, Absent: true, Why: "the store has no such object"})
		case errors.Is(err, errForeign):
			foreign = append(foreign, clipKey(key))
			out.Refused = append(out.Refused, wire.Refused{Key: key, Why: err.Error()})
		case err != nil:
			s.o.Notices.ReportFailure("lend", err)
			out.Refused = append(out.Refused, wire.Refused{Key: key, Why: "the Core could not find out now: ask again"})
		default:
			out.Lent = append(out.Lent, wire.URL{Key: key, URL: url})
		}
	}
	if len(foreign) > 0 {
		s.o.Notices.Foreign(ctx, a, foreign)
	}
	s.lent.Add(int64(len(out.Lent)))
	halts := wire.URLs{}
	if len(out.Lent) > 0 {
		var err error
		if halts, err = s.presignHalts(slices.Contains(v.Keys, haltKey), presign); err != nil {
			s.o.Notices.ReportFailure("lend", err)
			return
		}
	}
	if err := s.sendURLs(a, &out, &halts); err != nil && ctx.Err() == nil {
		s.o.Notices.ReportFailure("send", err)
	}
}

const haltKey = "halt"

// presignHalts presigns the halt object, unless it is lent already, and the next trust documents. With these the
// site can check a halt object by a key that is made while this Core is gone.
func (s *Service) presignHalts(lent bool, presign func(key string) (string, error)) (out wire.URLs, err error) {
	add := func(to *[]wire.URL, key string) {
		if err == nil {
			var url string
			url, err = presign(key)
			*to = append(*to, wire.URL{Key: key, URL: url})
		}
	}
	if !lent {
		add(&out.Lent, haltKey)
	}
	known := s.o.Repo().Memory().Trust
	for n := range uint64(wire.MaxNext) {
		add(&out.Next, repo.TrustKey(known+1+n))
	}
	return out, err
}

// sendURLs sends URLs, and refuses those that do not fit into one message. It adds those of the halt orders and the
// next trust documents, so that these can be read as long as the other objects.
func (s *Service) sendURLs(a wire.Address, out, halts *wire.URLs) error {
	for {
		all := *out
		all.Lent, all.Next = append(slices.Clone(out.Lent), halts.Lent...), halts.Next
		err := s.o.Send(a, &all)
		if !errors.Is(err, wire.ErrTooLarge) || len(out.Lent) <= 1 {
			return err
		}
		for _, u := range out.Lent[len(out.Lent)/2:] {
			out.Refused = append(out.Refused, wire.Refused{Key: u.Key, Why: "too many for one answer: ask again"})
		}
		out.Lent = out.Lent[:len(out.Lent)/2]
	}
}

// clipKey bounds a key that a site chose.
func clipKey(key string) string {
	const most = 1 << 10
	if len(key) > most {
		return key[:most] + "…"
	}
	return key
}
