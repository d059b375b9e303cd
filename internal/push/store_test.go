package push

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sync/errgroup"

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
