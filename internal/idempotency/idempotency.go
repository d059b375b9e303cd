// Package idempotency gives a repeated request the answer of the first one. A request is repeated if it carries the same
// key: the first has the effect, and a repetition waits for it if it still runs. The answers outlive the process.
//
// The key, the principal and the request are stored as MACs, and the answer is encrypted. To read it, one needs the
// request's key and the secret of the service.
package idempotency

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"nightferry/internal/ledger"
	"nightferry/internal/seal"
)

const (
	maxKey    = 200       // bytes
	maxAnswer = 256 << 10 // bytes that are kept of an answer
	workFor   = 10 * time.Minute
	storeFor  = time.Second // longer than the store takes, unless its disk hangs
)

func bounds() ledger.KeyedBounds {
	return ledger.KeyedBounds{Age: ledger.KeyedFor, Each: 1000, All: 20_000, Bytes: 64 << 20}
}

// Store keeps requests. *ledger.KeyedRequests is one.
type Store interface {
	Begin(ctx context.Context, r ledger.KeyedRequest, b ledger.KeyedBounds) (old *ledger.KeyedRequest, err error)
	Finish(ctx context.Context, id [32]byte, answer []byte) error
	Drop(ctx context.Context, id [32]byte) error
}

// Options of New.
type Options struct {
	Store  Store
	Now    func() time.Time
	Secret func() []byte // of this installation, the same after a restart
}

// Service knows the requests. It is safe for concurrent use.
type Service struct {
	o Options

	mu      sync.Mutex
	running map[[32]byte]chan struct{} // closed when the request ends
}

// New returns a service over a store.
func New(o Options) *Service { return &Service{o: o, running: map[[32]byte]chan struct{}{}} }

// Request is a request with a key. All of it but the key has to be the same in a repetition.
type Request struct {
	Key  string
	Who  string // the principal
	What string // route, parameters and body
}

// Errors of Do. If it returns one of them, nothing was done.
var (
	// ErrKey means that the key is empty, too long, or not printable ASCII.
	ErrKey = fmt.Errorf("the idempotency key is not good: want 1 to %d printable ASCII characters", maxKey)
	// ErrReused means that the key belongs to another request.
	ErrReused = errors.New("the idempotency key was used for another request")
	// ErrUnknown means that the process ended during the first request, so that its effect is not known.
	ErrUnknown = errors.New("the Core stopped during the first request with this idempotency key: it may have had its effect or not")
	// ErrTooLong means that the first request ended, and its answer was too long to keep.
	ErrTooLong = fmt.Errorf("the first request with this idempotency key was carried out; its answer of more than %d bytes was not kept", maxAnswer)
)

// Do calls work for the first request of a key, and returns its answer to that request and to each repetition. work ends with
// the context of the service's caller only after ten minutes: a client that disconnects does not interrupt it. If work
// returns keep false, it had no effect, and the next request with that key is the first again.
//
// If the store fails or hangs, work is done without a record: a halt must not wait for a disk.
func (s *Service) Do(ctx context.Context, r Request, work func(context.Context) (answer []byte, keep bool)) ([]byte, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	e := ledger.KeyedRequest{ID: s.mac(r.Key, "id"), Who: s.mac("", "who", r.Who), Request: s.mac(r.Key, "request", r.Who, r.What), At: s.o.Now()}
	end, err := s.takeTurn(ctx, e.ID)
	if err != nil {
		return nil, err
	}
	defer end()
	old, err := s.begin(ctx, e)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && old != nil {
		return s.firstAnswer(r, &e, old)
	}
	stored := err == nil
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), workFor)
	defer cancel()
	answer, keep := work(whole)
	if !stored {
		return answer, nil
	}
	// If the end cannot be stored, a repetition gets ErrUnknown, and this request its answer.
	always := context.WithoutCancel(ctx)
	if !keep {
		_ = s.o.Store.Drop(always, e.ID)
		return answer, nil
	}
	if sealed, err := s.seal(r, answer); err == nil {
		_ = s.o.Store.Finish(always, e.ID, sealed)
	}
	return answer, nil
}

func (s *Service) begin(ctx context.Context, e ledger.KeyedRequest) (*ledger.KeyedRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, storeFor)
	defer cancel()
	return s.o.Store.Begin(ctx, e, bounds())
}

// firstAnswer returns the answer of the request that was there before.
func (s *Service) firstAnswer(r Request, e, old *ledger.KeyedRequest) ([]byte, error) {
	switch {
	case !hmac.Equal(old.Request[:], e.Request[:]):
		return nil, ErrReused
	case !old.Ended:
		return nil, ErrUnknown
	case len(old.Answer) == 0:
		return nil, ErrTooLong
	}
	return s.open(r, old.Answer)
}

// takeTurn waits until no request with this ID runs, and returns the end of the caller's own.
func (s *Service) takeTurn(ctx context.Context, id [32]byte) (end func(), err error) {
	for {
		s.mu.Lock()
		before := s.running[id]
		if before == nil {
			done := make(chan struct{})
			s.running[id] = done
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.running, id)
				close(done)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > maxKey {
		return ErrKey
	}
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' {
			return ErrKey
		}
	}
	return nil
}

// mac is a MAC of texts under the secret of the service and the request's key.
func (s *Service) mac(key string, texts ...string) (out [32]byte) {
	h := hmac.New(sha256.New, s.o.Secret())
	for _, t := range append([]string{"idempotency", key}, texts...) {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	copy(out[:], h.Sum(nil))
	return out
}

func (s *Service) keys(r Request) (*seal.Keys, error) {
	k := s.mac(r.Key, "answer")
	return seal.NewKeys(k[:], [16]byte{})
}

// seal encrypts an answer. The result is empty if the answer is too long to keep.
func (s *Service) seal(r Request, answer []byte) ([]byte, error) {
	if len(answer) > maxAnswer {
		return nil, nil
	}
	k, err := s.keys(r)
	if err != nil {
		return nil, err
	}
	salt := k.NewSalt()
	o, err := k.Object("answer", salt)
	if err != nil {
		return nil, err
	}
	return o.Seal(salt, answer, 0), nil
}

func (s *Service) open(r Request, sealed []byte) ([]byte, error) {
	k, err := s.keys(r)
	if err != nil {
		return nil, err
	}
	if len(sealed) < seal.SaltSize {
		return nil, seal.ErrOpen
	}
	o, err := k.Object("answer", sealed[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return o.Open(nil, sealed[seal.SaltSize:], 0)
}
