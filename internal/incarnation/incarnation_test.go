package incarnation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// book is a ledger of one revision. fail is returned by Restate: the process was killed before it
// recorded the revision.
type book struct {
	revision uint64
	fail     error
}

func (b *book) Revision(context.Context) (uint64, error) { return b.revision, nil }

func (b *book) Restate(_ context.Context, revision uint64) error {
	if b.fail == nil {
		b.revision = revision
	}
	return b.fail
}

func (b *book) number() uint64 { return wire.IncarnationOf(b.revision) }

// bookOf is a ledger of a Core that had that number.
func bookOf(number uint64) *book { return &book{revision: wire.FirstRevision(number) + 7} }

type shared struct {
	bucket Bucket
}

// newShared makes a bucket on a real S3 server: numbers depend on its conditional Puts.
func newShared(t *testing.T) *shared {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(nil)
	return &shared{Bucket{Store: s3test.S3(t).Open(t), Repo: trust.RepoID{1}, Key: key, Doc: documentOf(key, trust.Active)}}
}

func documentOf(key ed25519.PrivateKey, status trust.Status) *trust.Doc {
	var p trust.Public
	copy(p[:], key.Public().(ed25519.PublicKey))
	return &trust.Doc{Keys: []trust.Key{{Public: p, Roles: trust.AllRoles, Status: status}}}
}

func (s *shared) core(b *book) *Service {
	return New(Options{Records: b, Bucket: func() Bucket { return s.bucket }, Now: time.Now, Taken: func(context.Context, uint64, uint64, uint64) {}})
}

func (s *shared) put(t *testing.T, raw []byte) {
	t.Helper()
	if _, err := s.bucket.Store.Put(t.Context(), Key, bucket.Bytes(raw), bucket.Cond{}); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, c *Service) {
	t.Helper()
	if taken, err := c.Take(t.Context()); err != nil || !taken {
		t.Fatalf("taken %t, %v", taken, err)
	}
	if taken, err := c.Take(t.Context()); err != nil || taken {
		t.Fatalf("taken again %t, %v", taken, err)
	}
}

// TestRestoredCopy: a start from any backup takes a number above all that the bucket has seen.
func TestRestoredCopy(t *testing.T) {
	s, backup := newShared(t), book{}
	for range 3 {
		take(t, s.core(&backup))
	}
	for _, old := range []*book{bookOf(1), bookOf(3), {}} {
		before := backup.number()
		take(t, s.core(old))
		if old.number() != before+1 {
			t.Errorf("incarnation %d after %d", old.number(), before)
		}
		backup = *old
	}
}

// TestNumberOnAFullLedger: while the ledger cannot record it, a Core keeps the number that it has put into the bucket.
func TestNumberOnAFullLedger(t *testing.T) {
	s, b := newShared(t), bookOf(4)
	c := s.core(b)
	b.fail = errors.New("the disk is full")
	for range 3 {
		if taken, err := c.Take(t.Context()); !errors.Is(err, b.fail) {
			t.Errorf("taken %t, %v", taken, err)
		}
		if found, err := readMark(t.Context(), &s.bucket); err != nil || found.number != 5 || c.Acts() == nil {
			t.Errorf("the bucket has %d, %v; the Core acts: %v", found.number, err, c.Acts())
		}
	}
	b.fail = nil
	take(t, c)
	if b.number() != 5 {
		t.Errorf("incarnation %d", b.number())
	}
}

// TestOlderOfTwo: the Core that was started first stops, and stays stopped.
func TestOlderOfTwo(t *testing.T) {
	s := newShared(t)
	a, b := s.core(&book{}), s.core(&book{})
	if err := a.Check(t.Context()); !errors.Is(err, ErrNone) || a.MayState(1<<40) {
		t.Errorf("before it has a number: %v", err)
	}
	take(t, a)
	first, second := wire.FirstRevision(1), wire.FirstRevision(2)
	if !a.MayState(first) || a.MayState(first-1) || a.Check(t.Context()) != nil {
		t.Error("the only Core does not act, or states a result of an earlier one")
	}
	take(t, b)
	var older *OlderError
	if err := a.Check(t.Context()); !errors.As(err, &older) || older.Own != 1 || older.Newer != 2 || a.Older() == nil || a.MayState(second) {
		t.Errorf("the older Core: %v", err)
	}
	if err := b.Check(t.Context()); err != nil || b.Older() != nil || !b.MayState(second) {
		t.Errorf("the newer Core: %v", err)
	}
	if err := s.bucket.Store.Delete(t.Context(), Key); err != nil {
		t.Fatal(err)
	}
	if taken, err := a.Take(t.Context()); !errors.As(err, &older) || taken {
		t.Errorf("the older Core acts again: %v", err)
	}
}

// TestFollowed: a site that has followed a number that bucket and ledger have lost raises the next
// one, within bounds.
func TestFollowed(t *testing.T) {
	s, b := newShared(t), &book{}
	c := s.core(b)
	if err := c.Followed(1 << 30); err != nil {
		t.Error(err) // the Core does not know its own number yet
	}
	take(t, c)
	for _, n := range []uint64{0, 1, 5} {
		if err := c.Followed(n); err != nil {
			t.Fatal(err)
		}
		if want := b.number() + 1; n >= b.number() {
			take(t, c)
			if b.number() != max(want, n+1) {
				t.Errorf("a site has followed %d: incarnation %d", n, b.number())
			}
		}
	}
	if err := c.Followed(b.number() + maxLeap + 1); err == nil {
		t.Error("a site can exhaust the numbers")
	}
	if taken, err := c.Take(t.Context()); taken || err != nil {
		t.Error(taken, err)
	}
}

// TestAtOnce: two Cores that start at the same time never take one number.
func TestAtOnce(t *testing.T) {
	s := newShared(t)
	var books [8]book
	var g sync.WaitGroup
	for i := range books {
		g.Go(func() {
			if _, err := s.core(&books[i]).Take(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	seen := map[uint64]bool{}
	for _, b := range books {
		if b.number() == 0 || seen[b.number()] {
			t.Errorf("incarnation %d was taken twice", b.number())
		}
		seen[b.number()] = true
	}
}

// TestKilledBetween: a Core that was killed between its two writes, in either order, takes a number
// above both. A process that could not record its number takes that one.
func TestKilledBetween(t *testing.T) {
	s, b := newShared(t), &book{fail: errors.New("killed")}
	c := s.core(b)
	if _, err := c.Take(t.Context()); !errors.Is(err, b.fail) || c.MayState(1<<40) {
		t.Fatal(err)
	}
	b.fail = nil
	take(t, c)
	if b.number() != 1 {
		t.Errorf("the same process: incarnation %d", b.number())
	}
	take(t, s.core(b))
	if b.number() != 2 {
		t.Errorf("the next start: incarnation %d", b.number())
	}
	ahead := bookOf(9) // the bucket has lost the write
	take(t, s.core(ahead))
	if ahead.number() != 10 {
		t.Errorf("the ledger was ahead: incarnation %d", ahead.number())
	}
}

// TestLostMark: if the object is gone, old, damaged or forged, the Core takes a new number. The number
// of a retired key counts.
func TestLostMark(t *testing.T) {
	s, b := newShared(t), &book{}
	c := s.core(b)
	check := func(want uint64) {
		t.Helper()
		take(t, c)
		if b.number() != want {
			t.Fatalf("incarnation %d, want %d", b.number(), want)
		}
	}
	check(1)
	old, _, err := getObject(t.Context(), s.bucket.Store)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.bucket.Store.Delete(t.Context(), Key); err != nil {
		t.Fatal(err)
	}
	check(2)
	s.put(t, old)
	check(3)
	s.put(t, []byte("damaged"))
	check(4)
	_, foreign, _ := ed25519.GenerateKey(nil)
	forged := s.bucket
	forged.Key = foreign
	raw, err := signMark(&forged, 1000, &mark{})
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, raw)
	check(5)

	retired := s.bucket.Key
	s.bucket.Doc = documentOf(foreign, trust.Active)
	s.bucket.Doc.Keys = append(s.bucket.Doc.Keys, documentOf(retired, trust.Retired).Keys...)
	s.bucket.Key = foreign
	restored := &book{}
	take(t, s.core(restored))
	if restored.number() != 6 {
		t.Errorf("after a retired key: incarnation %d", restored.number())
	}
}
