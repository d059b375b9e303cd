// Package heads keeps each channel's newest release: it reads the heads in the store, and enters their releases into the
// ledger.
//
// The Service also knows which heads it has read since the start. Until then the ledger may be a restored copy that
// lacks a channel's newest releases, so that nobody may act upon the newest one it has.
package heads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Records keeps releases. *ledger.Ledger is one.
type Records interface {
	AddRelease(ctx context.Context, r ledger.Release) error
}

// Incidents opens and ends incidents. *incident.Service is one.
type Incidents interface {
	Raise(kind kinds.Kind, what string, at wire.Address, text string)
	Resolve(kind kinds.Kind, what string, at wire.Address)
}

// Options are the parts that a Service uses. All fields are required.
type Options struct {
	Records   Records
	Incidents Incidents
	Repo      func() *repo.Repo
	Calendar  func(time.Time) time.Time // the time of records, which may be rehearsed
	// Released is called after a release became the newest one of its channel.
	Released func(r ledger.Release)
}

// Service holds the newest releases. It is safe for concurrent use.
type Service struct {
	o Options

	mu   sync.RWMutex
	all  map[string]ledger.Release
	read map[string]bool // channels whose head was read since the start
}

// New returns a Service that knows no release.
func New(o Options) *Service {
	return &Service{o: o, all: map[string]ledger.Release{}, read: map[string]bool{}}
}

// Of returns the newest release of a channel.
func (s *Service) Of(channel string) (ledger.Release, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.all[channel]
	return r, ok
}

// List returns the newest release of each channel, by channel.
func (s *Service) List() []ledger.Release {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]ledger.Release, 0, len(s.all))
	for _, r := range s.all {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ledger.Release) int { return cmp.Compare(a.Channel, b.Channel) })
	return out
}

// Read reports whether a channel's head was read since the start.
func (s *Service) Read(channel string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.read[channel]
}

// Put notes a release of the ledger and reports whether it is news.
func (s *Service) Put(r ledger.Release) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.all[r.Channel]; ok && old.Number >= r.Number {
		return false
	}
	s.all[r.Channel] = r
	return true
}

// ImportAll enters the head of each channel into the ledger, if it is news. known reports that a channel's head was read
// for the first time since the start. One damaged head does not keep the other channels.
func (s *Service) ImportAll(ctx context.Context, channels []string) (news, known bool, err error) {
	var errs []error
	for _, channel := range channels {
		before := s.Read(channel)
		fresh, err := s.Import(ctx, channel, ledger.RunID{})
		if err != nil {
			err = fmt.Errorf("channel %s: %w", channel, err)
		}
		now := s.Read(channel)
		switch {
		case now:
			s.o.Incidents.Resolve(kinds.Behind, channel, wire.Address{})
		case ctx.Err() == nil:
			s.o.Incidents.Raise(kinds.Behind, channel, wire.Address{}, fmt.Sprintf("%v. The Core does not know the newest release of the channel yet, so sites keep their desired one", err))
		}
		news, known = news || fresh, known || now && !before
		errs = append(errs, err)
	}
	return news, known, errors.Join(errs...)
}

// Import enters a channel's head into the ledger, if it is news. run is the publish that has written it; zero: another.
func (s *Service) Import(ctx context.Context, channel string, run ledger.RunID) (news bool, err error) {
	if news, err = s.importHead(ctx, channel, run); err == nil {
		s.mu.Lock()
		s.read[channel] = true
		s.mu.Unlock()
	}
	return news, err
}

func (s *Service) importHead(ctx context.Context, channel string, run ledger.RunID) (news bool, err error) {
	r := s.o.Repo()
	h, err := r.Head(ctx, channel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if have, ok := s.Of(channel); ok && have.Number >= h.Number {
		return false, nil
	}
	rel, err := r.Release(ctx, channel, h.Number, h.Release)
	if err != nil {
		return false, err
	}
	s.importBetween(ctx, r, channel, h.Number)
	e := s.entryOf(channel, rel)
	e.Run = run
	if err := s.o.Records.AddRelease(ctx, e); err != nil && !errors.Is(err, ledger.ErrConflict) {
		return false, err
	}
	if !s.Put(e) {
		return false, nil
	}
	s.o.Released(e)
	return true, nil
}

// maxBetween bounds how many releases are looked up that the ledger missed.
const maxBetween = 64

// importBetween enters releases that the ledger has missed, as far as they are
// still there: it is a restored backup, and sites may yet attest them.
func (s *Service) importBetween(ctx context.Context, r *repo.Repo, channel string, head trust.ReleaseNumber) {
	have, ok := s.Of(channel)
	if !ok {
		return
	}
	first := have.Number + 1
	if head > maxBetween {
		first = max(first, head-maxBetween)
	}
	for n := first; n < head; n++ {
		if rel, err := r.Release(ctx, channel, n, trust.ReleaseDigest{}); err == nil {
			_ = s.o.Records.AddRelease(ctx, s.entryOf(channel, rel)) // the newest one is what counts
		}
	}
}

func (s *Service) entryOf(channel string, rel *repo.Release) ledger.Release {
	e := ledger.Release{Channel: channel, Number: rel.Number, Digest: rel.Digest, Tree: rel.Tree, Files: rel.Totals.Files, Bytes: rel.Totals.Bytes, Published: s.o.Calendar(time.Unix(rel.Created, 0).UTC())}
	if e.Number > 1 {
		e.Parent = e.Number - 1
	}
	return e
}
