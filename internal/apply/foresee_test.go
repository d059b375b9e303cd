package apply

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
)

// reading records which objects are read.
type reading struct {
	bucket.Store
	mu   sync.Mutex
	keys map[string]bool
}

func (r *reading) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r.mu.Lock()
	r.keys[key] = true
	r.mu.Unlock()
	return r.Store.Get(ctx, key, off, n)
}

// TestForeseen: the run reads only objects that Foresee has read or returned. Foresee changes nothing in the target
// and returns a result only once for the same index.
func TestForeseen(t *testing.T) {
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	lay(t, src, with(small, func(tr tree) {
		tr["a.txt"] = "longer than before"
		tr["new.bin"] = blob(77, 300_000)
		delete(tr, "b-file")
	}))
	p.publish(src)
	before := seen(t, dst)
	ahead := &reading{Store: p.store, keys: map[string]bool{}}
	f, err := Foresee(t.Context(), ahead, dst, options(nil), 0)
	try(t, err)
	if f.Needed != 300_018 || len(f.Packs) == 0 || f.Index == 0 {
		t.Errorf("%+v", f)
	}
	if d := cmp.Diff(before, seen(t, dst)); d != "" {
		t.Error(d)
	}
	if again, err := Foresee(t.Context(), p.store, dst, options(nil), f.Index); again != nil || err != nil {
		t.Errorf("foreseen again: %+v, %v", again, err)
	}
	for _, key := range f.Packs {
		ahead.keys[key] = true
	}
	run := &reading{Store: p.store, keys: map[string]bool{}}
	res, err := Run(t.Context(), run, dst, options(nil))
	if err != nil || res.Verdict != Verified || res.BytesNeeded != f.Needed {
		t.Fatalf("%+v, %v", res, err)
	}
	sameTree(t, src, dst)
	packs := 0
	for key := range run.keys {
		if !ahead.keys[key] {
			t.Errorf("the run reads %s, which was not foreseen", key)
		}
		if strings.HasPrefix(key, "packs/") {
			packs++
		}
	}
	if packs == 0 {
		t.Error("the run read no pack")
	}
}
