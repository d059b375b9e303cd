package idempotency

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/ledger"
)

// life is a Core's process: a service over a ledger file.
func life(t *testing.T, path string, now *time.Time) (*Service, func()) {
	t.Helper()
	clock := func() time.Time { return *now }
	l, err := ledger.Open(t.Context(), path, ledger.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Store: &l.KeyedRequests, Now: clock, Secret: func() []byte { return []byte("vault") }}), func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOneEffect repeats a request after its end, after a restart, after a day, and with other keys, people and content.
func TestOneEffect(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "ledger.db"), time.Unix(1e9, 0)
	effects := 0
	work := func(context.Context) ([]byte, bool) { effects++; return []byte("the new token is nft_secret"), true }
	first := Request{Key: "k1", Who: "kay", What: "POST /v1/halt {}"}
	do := func(s *Service, r Request, want error, effect int) {
		t.Helper()
		b, err := s.Do(t.Context(), r, work)
		if !errors.Is(err, want) || effects != effect || err == nil && string(b) != "the new token is nft_secret" {
			t.Errorf("%+v: %q %v, %d effects, want %d and %v", r, b, err, effects, effect, want)
		}
	}
	s, end := life(t, path, &now)
	do(s, first, nil, 1)
	do(s, first, nil, 1)
	for _, other := range []Request{{"k1", "eve", first.What}, {"k1", "kay", "POST /v1/halt {1}"}, {"k1", "kayPOST", " /v1/halt {}"}} {
		do(s, other, ErrReused, 1)
	}
	for _, key := range []string{"", strings.Repeat("x", maxKey+1), "ü", "a\nb"} {
		do(s, Request{key, "kay", ""}, ErrKey, 1)
	}
	do(s, Request{"k2", "kay", first.What}, nil, 2)
	end()
	s, end = life(t, path, &now)
	do(s, first, nil, 2)
	now = now.Add(23 * time.Hour)
	do(s, first, nil, 2)
	now = now.Add(2 * time.Hour)
	do(s, first, nil, 3)
	end()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"nft_secret", "kay", "k1"} {
		if len(secret) > 2 && bytes.Contains(b, []byte(secret)) {
			t.Errorf("the ledger holds %q as it is", secret)
		}
	}
}

// TestBesideTheFirst repeats a request while the first one runs, and its client has gone.
func TestBesideTheFirst(t *testing.T) {
	now := time.Unix(1e9, 0)
	s, end := life(t, filepath.Join(t.TempDir(), "ledger.db"), &now)
	defer end()
	var effects atomic.Int32
	began, finish := make(chan bool), make(chan bool)
	gone, leave := context.WithCancel(t.Context())
	r := Request{"k", "kay", "x"}
	answers := make(chan string, 2)
	do := func(ctx context.Context) {
		b, err := s.Do(ctx, r, func(ctx context.Context) ([]byte, bool) {
			effects.Add(1)
			close(began)
			<-finish
			return []byte("done"), ctx.Err() == nil
		})
		if err != nil {
			b = []byte(err.Error())
		}
		answers <- string(b)
	}
	go do(gone)
	<-began
	leave()
	go do(t.Context())
	patient, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Do(patient, r, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a repetition whose client has gone: %v", err)
	}
	close(finish)
	if a, b := <-answers, <-answers; a != "done" || b != "done" || effects.Load() != 1 {
		t.Errorf("%q and %q, %d effects", a, b, effects.Load())
	}
}

// TestNoEffect checks that a request without an effect leaves its key free, that one that the end of the process interrupted does
// not, and that a failing store keeps no request from its effect.
func TestNoEffect(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "ledger.db"), time.Unix(1e9, 0)
	s, end := life(t, path, &now)
	kept := func(context.Context) ([]byte, bool) { return []byte("yes"), true }
	if _, err := s.Do(t.Context(), Request{"k", "kay", "x"}, func(context.Context) ([]byte, bool) { return []byte("no"), false }); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Do(t.Context(), Request{"k", "kay", "other"}, kept); string(b) != "yes" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Do(t.Context(), Request{"k3", "kay", "x"}, func(context.Context) ([]byte, bool) { panic("the process ends") })
	}()
	if _, err := s.Do(t.Context(), Request{"k3", "kay", "x"}, kept); !errors.Is(err, ErrUnknown) {
		t.Errorf("after an interrupted request: %v", err)
	}
	long := func(context.Context) ([]byte, bool) { return make([]byte, maxAnswer+1), true }
	if b, err := s.Do(t.Context(), Request{"k4", "kay", "x"}, long); len(b) != maxAnswer+1 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := s.Do(t.Context(), Request{"k4", "kay", "x"}, long); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long answer once more: %v", err)
	}
	end()
	if b, err := s.Do(t.Context(), Request{"k9", "kay", "x"}, kept); string(b) != "yes" || err != nil {
		t.Errorf("without a store: %q %v", b, err)
	}
}

// hanging is a store whose disk does not answer.
type hanging struct{ Store }

func (hanging) Begin(ctx context.Context, _ ledger.KeyedRequest, _ ledger.KeyedBounds) (*ledger.KeyedRequest, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestHangingStore checks that a request does not wait for a store that hangs.
func TestHangingStore(t *testing.T) {
	s := New(Options{Store: hanging{}, Now: time.Now, Secret: func() []byte { return []byte("vault") }})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := s.Do(ctx, Request{"k", "kay", "x"}, func(context.Context) ([]byte, bool) { return []byte("halted"), true })
	if string(b) != "halted" || err != nil {
		t.Errorf("%q %v", b, err)
	}
}
