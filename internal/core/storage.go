package core

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/vault"
)

// storage is the store with its repository, and the Core's keys. All three are
// replaced as a whole. It is safe for concurrent use.
type storage struct {
	o       *Options
	account string // of the operator's own NATS cluster; empty: the bus is our own
	vault   *vault.Vault
	clock   *clocks
	notices *notices
	state   *durable.Root // saved state of the repository, and caches

	keys  atomic.Pointer[keys]
	store atomic.Pointer[backend]
	repo  atomic.Pointer[repo.Repo]
	mu    sync.Mutex // one opening of the repository at a time
}

// openStorage reads the keys and opens the store and its repository with them.
func (s *storage) openStorage(ctx context.Context) error {
	k, err := readKeys(ctx, s.vault, s.o)
	if err != nil {
		return err
	}
	store, err := bucket.Open(ctx, s.o.StoreURL, k.store)
	if err != nil {
		return err
	}
	lender, ok := store.(bucket.Presigner)
	if !ok {
		return errors.Join(fmt.Errorf("store %q: sites pull through URLs that only an S3 store can lend", s.o.StoreURL), bucket.Close(store))
	}
	raw, _, err := lender.PresignGet(ctx, "format", s.clock.now(), time.Minute)
	if err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("the store lends URLs that do not parse") // the cause could contain a presigned URL
	}
	if s.o.wrapStore != nil {
		store = s.o.wrapStore(store)
	}
	b := &backend{Store: store, Presigner: lender, origin: u.Scheme + "://" + u.Host}
	r, err := s.firstRepo(ctx, b, k)
	if err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	if err := mayControl(r, k.release); err != nil {
		return errors.Join(err, bucket.Close(store))
	}
	if s.account != "" {
		k.seeds.Account = s.account
	}
	s.keys.Store(k)
	s.store.Store(b)
	s.repo.Store(r)
	return nil
}

// backend is the currently open store.
type backend struct {
	bucket.Store
	bucket.Presigner
	origin string // scheme://host[:port] of its presigned URLs
}

// storeTime asks the store for its time.
func (s *storage) storeTime(ctx context.Context) (time.Time, error) {
	body, info, err := s.store.Load().Get(ctx, "format", 0, -1)
	if err != nil {
		return time.Time{}, err
	}
	return info.Date, body.Close()
}

// reopenRepository opens the repository again, which reads newer trust documents. If they were read but
// could not be made durable, it returns both the repository and an error. The caller may then read
// halt orders but must not adopt releases.
func (s *storage) reopenRepository(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.repoOptions(nil, k)
	if o.Continue = s.repo.Load(); o.Continue == nil {
		var err error
		if o.Memory, err = repo.LoadMemory(s.state); err != nil {
			return nil, err
		}
	}
	r, err := repo.Open(ctx, b.Store, o)
	if err != nil {
		return nil, err
	}
	return r, repo.SaveMemory(s.state, r.Memory())
}

// openTime bounds the first request for a known repository.
const openTime = 3 * time.Second

// firstRepo opens the repository. If the store does not answer or refuses, it opens the last known
// state, because the kill switch must work meanwhile; each poll asks the store again. A Core that
// has never seen its repository, or whose store has none, cannot start.
func (s *storage) firstRepo(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	m, err := repo.LoadMemory(s.state)
	if err != nil {
		return nil, err
	}
	remembered, err := repo.OpenRemembered(b.Store, s.repoOptions(m, k))
	if errors.Is(err, repo.ErrNoRepository) {
		return s.openRepoPatiently(ctx, b, k)
	}
	if err != nil {
		return nil, err
	}
	octx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	r, err := s.reopenRepository(octx, b, k)
	switch {
	case err == nil:
		return r, nil
	case r != nil:
		s.notices.ReportFailure("state", err)
		return r, nil
	case ctx.Err() != nil || errors.Is(err, repo.ErrNoRepository) || errors.Is(err, bucket.ErrNoBucket):
		return nil, err
	case octx.Err() != nil || errors.As(err, new(*bucket.Error)):
		s.notices.ReportFailure("store", fmt.Errorf("%w: the Core starts from the last state it read", err))
		return remembered, nil
	}
	return nil, err
}

func (s *storage) repoOptions(m *repo.Memory, k *keys) repo.Options {
	return repo.Options{Memory: m, Root: &k.root, Key: k.repo, Now: s.o.Now, OnRetry: func(err error) { s.notices.ReportFailure("store", err) }}
}

// openTries is how often a starting Core asks the store, waiting one second longer each time. One
// damaged response must not stop the Core.
const openTries = 3

func (s *storage) openRepoPatiently(ctx context.Context, b *backend, k *keys) (*repo.Repo, error) {
	for try := 1; ; try++ {
		r, err := s.reopenRepository(ctx, b, k)
		refused := (*bucket.Error)(nil)
		if err == nil || try == openTries || !errors.As(err, &refused) || refused.Kind == bucket.KindNotExist {
			return r, err
		}
		s.notices.ReportFailure("store", err)
		wait := time.NewTimer(time.Duration(try) * time.Second)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// openSubfolder opens a folder below the Core's state.
func (s *storage) openSubfolder(name string) (*durable.Root, error) {
	if err := s.state.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	return s.state.Sub(name)
}
