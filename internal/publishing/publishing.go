// Package publishing tracks which channels are being published and measured.
// Channels are independent: if one source does not answer, for example a dead
// network mount, no other channel is delayed.
package publishing

import (
	"context"
	"sync"
)

// Kind of an act on a channel's source.
type Kind string

// The kinds. One act of each may run on a channel at a time.
const (
	Publish Kind = "publish"
	Measure Kind = "measure"
)

type key struct {
	kind    Kind
	channel string
}

// Service tracks the acts under way. The zero Service is ready to use, and safe
// for concurrent use.
type Service struct {
	mu   sync.Mutex
	acts map[key]context.CancelCauseFunc
}

// Begin starts an act; ok is false if one of that kind runs on the channel
// already. The context ends with the act, or when Stop has a cause. The caller
// calls end once.
func (s *Service) Begin(ctx context.Context, k Kind, channel string) (_ context.Context, end func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := key{k, channel}
	if s.acts[at] != nil {
		return ctx, nil, false
	}
	if s.acts == nil {
		s.acts = map[key]context.CancelCauseFunc{}
	}
	ctx, stop := context.WithCancelCause(ctx)
	s.acts[at] = stop
	return ctx, func() {
		stop(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.acts, at)
	}, true
}

// Running reports whether an act of a kind runs on a channel.
func (s *Service) Running(k Kind, channel string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acts[key{k, channel}] != nil
}

// Stop ends the acts on the channels for which why returns a cause.
func (s *Service) Stop(why func(channel string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, stop := range s.acts {
		if err := why(k.channel); err != nil {
			stop(err)
		}
	}
}
