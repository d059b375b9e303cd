package push

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/bucket"
	"nightferry/internal/pack"
)

// TestBlockTellsWhyItWasNotAdded checks that block returns an error if it cannot add a block because the run has ended.
func TestBlockTellsWhyItWasNotAdded(t *testing.T) {
	halted, failed := errors.New("halted"), errors.New("the upload failed")
	for name, end := range map[string]func(s *store, stop context.CancelCauseFunc){
		"halted":            func(_ *store, stop context.CancelCauseFunc) { stop(halted) },
		"the upload failed": func(s *store, _ context.CancelCauseFunc) { s.uploads.Go(func() error { return failed }) },
	} {
		ctx, stop := context.WithCancelCause(t.Context())
		s := &store{bufs: make(chan []byte)}
		s.uploads, s.upctx = errgroup.WithContext(ctx)
		end(s, stop)
		if err := s.addBlock(pack.Block{}); err == nil || err.Error() != name {
			t.Errorf("%s: %v", name, err)
		}
		stop(nil)
		_ = s.uploads.Wait() // the error was returned above
	}
}

// slowStore stores packs slowly and records the largest number of them that were being stored at once.
type slowStore struct {
	bucket.Store
	now, most atomic.Int64
}

func (s *slowStore) Put(ctx context.Context, key string, body bucket.Body, cond bucket.Cond) (bucket.Info, error) {
	if strings.HasPrefix(key, "packs/") {
		n := s.now.Add(1)
		defer s.now.Add(-1)
		for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
		}
		time.Sleep(300 * time.Millisecond) // the next pack is filled by then
	}
	return s.Store.Put(ctx, key, body, cond)
}

// TestConnectionsBoundUploads: no more packs are stored at once than was asked for.
func TestConnectionsBoundUploads(t *testing.T) {
	g := newRig(t, nil)
	for _, n := range []int{1, 2} {
		for i := range uint64(5) {
			g.write(fmt.Sprintf("image-%d.iso", i), noise(uint64(n)<<8+i, 14<<20))
		}
		slow := &slowStore{Store: g.store}
		if _, err := g.pushTo(t.Context(), slow, func(o *Options) { o.Connections = n }); err != nil {
			t.Fatal(err)
		}
		if most := slow.most.Load(); most != int64(n) {
			t.Errorf("%d packs were stored at once, want %d", most, n)
		}
	}
}
