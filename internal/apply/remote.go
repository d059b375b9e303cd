package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
)

// haltEvery is how often a long fetch checks the bucket for halt orders.
const haltEvery = 30 * time.Second

// remote is the repository as the run reads it, with the local copies of its pages.
type remote struct {
	o      *Options
	root   *durable.Root // the target's, which holds the memory
	pages  pageCache
	repo   *repo.Repo
	index  *repo.Index
	report *reporter
	wire   atomic.Int64 // bytes received

	mu          sync.Mutex
	haltChecked time.Time // time of the last check for halt orders in the bucket
}

// ErrUnfinished means that a halt order stopped a commit midway. Each file is whole, the old or the new one. The
// next run finishes the commit first.
var ErrUnfinished = errors.New("stopped in the middle of a commit, which the next run finishes")

// haltedCommit ends a commit for a halt order, and for no other reason; nothing is written after it. If ctx has ended
// for another reason, such as the window's end, it does not show a later halt order, but Gate does.
func (r *remote) haltedCommit(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return r.checkHalted(ctx)
}

// checkHalted returns ErrUnfinished if ctx or Gate reports a halt order.
func (r *remote) checkHalted(ctx context.Context) error {
	var order *halt.Error
	if errors.As(context.Cause(ctx), &order) || r.o.Gate != nil && errors.As(r.o.Gate(context.WithoutCancel(ctx)), &order) {
		return fmt.Errorf("%w: %w", ErrUnfinished, order)
	}
	return nil
}

// loadMemory loads the repository state last seen, or nil at first use. A damaged memory is a *repo.MemoryError:
// without it, older data would be accepted.
func (r *remote) loadMemory() (*repo.Memory, error) {
	f, err := r.root.Open(memoryName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if durable.IsBlocked(err) {
		return nil, &repo.MemoryError{File: memoryName, Err: err}
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %q: %w", memoryName, err)
	}
	m := new(repo.Memory)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, &repo.MemoryError{File: memoryName, Err: err}
	}
	return m, nil
}

// lowerBound returns the memory that the applied release proves. Its number is the lowest that may be accepted.
func (r *remote) lowerBound() *repo.Memory {
	m := &repo.Memory{Heads: map[string]trust.ReleaseNumber{}}
	if cat, err := scan.OpenCatalogue(r.root, catalogueName); err == nil {
		h := cat.Header()
		m.Heads[h.Channel] = h.Number
		_ = cat.Close() // it was only read
	}
	return m
}

// setAside keeps a damaged file under another name and reports it.
func (r *remote) setAside(name string, why error) error {
	to, err := durable.SetAside(r.root, name)
	if err == nil {
		r.report.emitAside(name, to, why)
	}
	return err
}

// saveMemory saves the repository state durably, before any of the data is cached.
func (r *remote) saveMemory(old *repo.Memory) error {
	now, err := json.Marshal(r.repo.Memory())
	if err != nil {
		return fmt.Errorf("encode memory: %w", err)
	}
	if old != nil {
		if was, err := json.Marshal(old); err == nil && string(was) == string(now) {
			return nil
		}
	}
	return r.root.WriteFile(memoryName, now, 0o644)
}

// loadIndex returns the index. It reads it once, when it is first needed.
func (r *remote) loadIndex(ctx context.Context) (*repo.Index, error) {
	if r.index == nil {
		x, err := r.repo.Index(ctx)
		if err != nil {
			return nil, err
		}
		r.index = x
	}
	return r.index, nil
}

// checkGate is called before each request and each block.
func (r *remote) checkGate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if r.o.Gate != nil {
		if err := r.o.Gate(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	now := r.o.Now()
	due := now.Sub(r.haltChecked) >= haltEvery
	if due {
		r.haltChecked = now
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	return r.repo.Halts().Check(ctx, r.o.Subject)
}

func (r *remote) fetchOptions() repo.FetchOptions {
	return repo.FetchOptions{Connections: r.o.Connections, Gate: r.checkGate, OnRetry: r.report.emitRetry,
		OnBytes: func(n int64) { r.wire.Add(n) }}
}

func (r *remote) openWith(ctx context.Context, store bucket.Store, memory *repo.Memory) (*repo.Repo, error) {
	return repo.Open(ctx, store, repo.Options{Memory: memory, Root: r.o.RootKey, Key: r.o.Key, Now: r.o.Now, OnRetry: r.report.emitRetry})
}

// openRepository opens the repository, obeys its halt orders, calls permitted unless it is nil, and reads the head. It
// saves the repository state before it returns.
func (r *remote) openRepository(ctx context.Context, store bucket.Store, permitted func(context.Context) error) (*repo.Head, error) {
	memory, err := r.loadMemory()
	if err == nil {
		r.repo, err = r.openWith(ctx, store, memory)
	}
	if r.o.RootKey != nil && errors.As(err, new(*repo.MemoryError)) {
		// The caller vouches for the root key, and the catalogue for the number of the release.
		memory = r.lowerBound()
		if err = r.setAside(memoryName, err); err == nil {
			r.repo, err = r.openWith(ctx, store, memory)
		}
	}
	if err != nil {
		return nil, err
	}
	if memory == nil && r.o.RootKey == nil {
		r.report.emit(Event{Kind: PinEvent, Root: r.repo.Trust().Root()})
	}
	r.haltChecked = r.o.Now()
	err = r.repo.Halts().Check(ctx, r.o.Subject)
	if err == nil && permitted != nil {
		err = permitted(ctx)
	}
	var head *repo.Head
	if err == nil {
		head, err = r.repo.Head(ctx, r.o.Channel)
	}
	// Save the state even if the run stops here: a halt order advances the epoch.
	return head, errors.Join(err, r.saveMemory(memory))
}
