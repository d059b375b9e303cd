package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/trust"
)

// TestMemoryNeverGoesBack checks that the saved memory has the highest numbers of all runs that end at the
// same time, each with its own memory.
func TestMemoryNeverGoesBack(t *testing.T) {
	path := t.TempDir()
	var runs sync.WaitGroup
	const many = 20
	for n := range trust.ReleaseNumber(many) {
		runs.Go(func() {
			dir, err := durable.Open(path, durable.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer dir.Close()
			m := Memory{RepoHex: "aa", Trust: uint64(n % 7), TrustDoc: []byte{byte(n % 7)}, Halt: uint64(n), Heads: map[string]trust.ReleaseNumber{"package": many - n, fmt.Sprint(n): 1}}
			if err := SaveMemory(dir, m); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	dir, err := durable.Open(path, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := LoadMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Trust != 6 || m.TrustDoc[0] != 6 || m.Halt != many-1 || m.Heads["package"] != many || len(m.Heads) != many+1 {
		t.Errorf("%+v", m)
	}
	if err := SaveMemory(dir, Memory{RepoHex: "bb"}); err == nil {
		t.Error("another repository's memory was accepted")
	}
}

// TestOpeningsShareTheirMemory checks that a number which one opening sees holds for the other at once, also while the
// other is still being opened: a Core opens its repository again at each look at the store, and gives halt orders meanwhile.
func TestOpeningsShareTheirMemory(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		first := p.mustOpen(nil)
		before, _, err := readObject(ctx, p.store, haltKey, halt.Max)
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowStore{Store: p.store, meanwhile: func() {
			if _, err := first.Halts().Put(ctx, p.key, func(o *halt.Orders) error {
				o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, At: 1})
				return nil
			}); err != nil {
				t.Error(err)
			}
		}}
		second, err := Open(ctx, slow, Options{Continue: first, Key: p.seal, Now: func() time.Time { return p.now }})
		if err != nil {
			t.Fatal(err)
		}
		_, info, err := readObject(ctx, p.store, haltKey, halt.Max)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := putObject(ctx, p.store, haltKey, before, replaceCond(info.ETag)); err != nil {
			t.Fatal(err)
		}
		for i, r := range []*Repo{first, second} {
			if _, err := r.Halts().Read(ctx); !errors.Is(err, ErrOlder) {
				t.Errorf("opening %d accepted an old halt object: %v", i+1, err)
			}
		}
	})
}

// slowStore is a store that does something else before it answers whether there is a second trust document.
type slowStore struct {
	bucket.Store
	once      sync.Once
	meanwhile func()
}

func (s *slowStore) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	if key == TrustKey(2) {
		s.once.Do(s.meanwhile)
	}
	return s.Store.Get(ctx, key, off, n)
}
