package halting_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"nightferry/internal/halt"
	"nightferry/internal/halting"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/wire"
)

// bucket is a store with a halt object and a signer that all readers trust.
type bucket struct {
	mu     sync.Mutex
	object *repo.HaltObject // nil: removed
	seen   uint64
	down   error
}

func (b *bucket) SignHalt(epoch uint64, o *halt.Orders) ([]byte, error) {
	payload, err := o.Encode()
	return append(binary.BigEndian.AppendUint64(nil, epoch), payload...), err
}

func (b *bucket) OpenHalt(object []byte) (*repo.HaltObject, error) {
	if len(object) < 8 {
		return nil, errors.New("too short")
	}
	o, err := halt.Decode(object[8:])
	return &repo.HaltObject{Raw: object, Epoch: binary.BigEndian.Uint64(object), Orders: o}, err
}

func (b *bucket) AllowsHalt([]byte) error { return nil }

func (b *bucket) Halt(context.Context) (*repo.HaltObject, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read()
}

func (b *bucket) read() (*repo.HaltObject, error) {
	switch {
	case b.down != nil:
		return nil, b.down
	case b.object == nil:
		return nil, fmt.Errorf("gone: %w", fs.ErrNotExist)
	case b.object.Epoch < b.seen:
		return b.object, repo.ErrOlder
	}
	b.seen = b.object.Epoch
	return b.object, nil
}

func (b *bucket) MergeHalt(_ context.Context, change func(*repo.HaltObject, bool) (uint64, error)) (*repo.HaltObject, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := b.read()
	lost := repo.OrdersLost(err)
	if err != nil && !lost {
		return nil, err
	}
	next := &repo.HaltObject{Orders: &halt.Orders{}, Epoch: b.seen}
	if h != nil {
		next.Orders.Active = slices.Clone(h.Orders.Active)
	}
	floor, err := change(next, lost)
	if err != nil {
		return nil, err
	}
	next.Epoch = max(next.Epoch, floor) + 1
	if next.Raw, err = b.SignHalt(next.Epoch, next.Orders); err != nil {
		return nil, err
	}
	b.object, b.seen = next, next.Epoch
	return next, nil
}

// put changes the store's orders as another program would.
func (b *bucket) put(edit func(*halt.Orders)) {
	_, _ = b.MergeHalt(context.Background(), func(h *repo.HaltObject, _ bool) (uint64, error) { edit(h.Orders); return 0, nil })
}

// book is a ledger that can be full.
type book struct {
	mu   sync.Mutex
	rows map[halt.ID]ledger.Halt
	full bool
	hang chan struct{} // nil: it does not
}

func (b *book) List(_ context.Context, all bool) (list []ledger.Halt, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.rows {
		if all || h.Resumed.IsZero() {
			list = append(list, h)
		}
	}
	return list, nil
}

func (b *book) Keep(_ context.Context, list []ledger.Halt) error {
	if b.hang != nil {
		<-b.hang
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return ledger.ErrFull
	}
	for _, h := range list {
		b.rows[h.Order] = h
	}
	return nil
}

func (b *book) ForgetStops(_ context.Context, domain, site string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, h := range b.rows {
		h.Confirmed = slices.DeleteFunc(slices.Clone(h.Confirmed), func(s ledger.Stop) bool { return s.Domain == domain && s.Site == site })
		b.rows[id] = h
	}
	return nil
}

// page is a Record in memory.
type page struct {
	mu   sync.Mutex
	b    []byte
	fail error
}

func (p *page) Write(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	p.b = slices.Clone(b)
	return nil
}

// desk is a Core with the service.
type desk struct {
	t *testing.T
	*halting.Service
	store   bucket
	book    book
	page    page
	changed func(*halting.Set)
	failed  []string
	now     time.Time // of the Core's clock; zero: the machine's
}

func (d *desk) clock() time.Time {
	if d.now.IsZero() {
		return time.Now()
	}
	return d.now
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, book: book{rows: map[halt.ID]ledger.Halt{}}, changed: func(*halting.Set) {}}
	d.store.put(func(*halt.Orders) {})
	d.open()
	return d
}

// open restarts the service from its record.
func (d *desk) open() {
	d.t.Helper()
	s, err := halting.Open(d.t.Context(), halting.Options{
		Repository: func() halting.Repository { return &d.store }, Ledger: &d.book, Record: &d.page, Recorded: d.page.b, Epoch: d.store.seen, Now: d.clock, Device: d.clock,
		Changed: func(_ context.Context, s *halting.Set) { d.changed(s) }, Failed: func(what string, err error) { d.failed = append(d.failed, fmt.Sprint(what, err)) },
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.Service = s
	d.t.Cleanup(s.Close)
}

func (d *desk) give(reason string) halt.ID {
	d.t.Helper()
	o := halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: reason, By: "test", At: 1}
	if _, err := d.Give(d.t.Context(), o); err != nil {
		d.t.Fatal(err)
	}
	return o.ID
}

func (d *desk) lift(id halt.ID) {
	d.t.Helper()
	if _, err := d.Lift(d.t.Context(), "test", func(o *halt.Orders) ([]halt.Order, error) {
		found, err := o.Match(id.String())
		if found == nil {
			return nil, err
		}
		return []halt.Order{*found}, nil
	}); err != nil {
		d.t.Fatal(err)
	}
}

// active returns the orders that List shows as active.
func (d *desk) active() map[halt.ID]ledger.Halt {
	d.t.Helper()
	list, err := d.List(d.t.Context(), false)
	if err != nil {
		d.t.Fatal(err)
	}
	m := map[halt.ID]ledger.Halt{}
	for _, l := range list {
		m[l.Order] = l
	}
	return m
}

var osaka = wire.Address{Domain: "apac", Site: "osaka"}
