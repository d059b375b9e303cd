package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/frame"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// storeFlags are the flags of every verb that opens a repository.
type storeFlags struct {
	keyFile     string
	trust       string
	rate        string
	connections int
}

func (f *storeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "`FILE` with the key of an encrypted repository (or the key in NIGHTFERRY_KEY)")
	cmd.Flags().StringVar(&f.trust, "trust", "", "the repository's public root `KEY`, or a file with it; without it, the key is pinned on first use")
	cmd.Flags().StringVar(&f.rate, "limit-rate", "", "move at most `RATE`, such as 20Mbit, 2.5MB or 512KiB per second")
	cmd.Flags().IntVar(&f.connections, "connections", 8, "`N` requests under way at once")
}

// root returns the root key that must be the repository's, nil for any.
func (f *storeFlags) root() (*trust.Public, error) {
	if f.trust == "" {
		return nil, nil
	}
	p, err := publicKey(rootUse, f.trust)
	return &p, err
}

// openStore opens the store and applies the rate.
func (e *env) openStore(ctx context.Context, rawURL string, f *storeFlags, create bool) (*traffic, error) {
	var rate int64
	if f.rate != "" {
		var err error
		if rate, err = bucket.ParseRate(f.rate); err != nil {
			return nil, usage("", "--limit-rate: %w", err)
		}
	}
	if f.connections < 1 || f.connections > 256 {
		return nil, usage("", "--connections %d: want 1 to 256", f.connections)
	}
	e.store = rawURL
	s, err := bucket.Open(ctx, rawURL, bucket.Options{
		UserAgent: "nightferry/" + version(),
		OnRetry:   func(err error) { e.retry(err) },
		Create:    create,
	})
	if err != nil {
		return nil, err
	}
	return &traffic{Store: bucket.Limit(s, rate)}, nil
}

// retry tells of something that will be tried again.
func (e *env) retry(err error) {
	if e.json {
		e.event("retry", struct {
			Cause string `json:"cause"`
		}{err.Error()})
		return
	}
	text, _ := explain(err)
	e.mu.Lock()
	again := e.lastRetry == text
	e.lastRetry = text
	e.mu.Unlock()
	if !again { // a person learns nothing from the same line eight times
		e.warn("trying again: %s", text)
	}
}

// session is an open repository and this machine's memory of it.
type session struct {
	*repo.Repo
	state   *durable.Root
	e       *env
	flags   *storeFlags
	traffic *traffic
}

// open opens the repository in a store, and remembers what it has seen before
// anything is done with it.
func (e *env) open(ctx context.Context, rawURL string, f *storeFlags) (*session, error) {
	store, err := e.openStore(ctx, rawURL, f, false)
	if err != nil {
		return nil, err
	}
	key, err := repositoryKey(f.keyFile)
	if err != nil {
		return nil, err
	}
	root, err := f.root()
	if err != nil {
		return nil, err
	}
	s := &session{e: e, flags: f, traffic: store}
	s.Repo, err = repo.Open(ctx, store, repo.Options{Key: key, Root: root, Now: e.now, OnRetry: e.retry, Recall: func(id trust.RepoID) (*repo.Memory, error) {
		if s.state, err = e.openState(id); err != nil {
			return nil, err
		}
		return repo.RecallMemory(s.state, root)
	}})
	if err == nil {
		err = s.remember()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) close() error {
	if s.state == nil {
		return nil
	}
	return s.state.Close()
}

// remember makes durable what was seen.
func (s *session) remember() error { return repo.SaveMemory(s.state, s.Memory()) }

// head reads a channel's head and remembers it.
func (s *session) head(ctx context.Context, channel string) (*repo.Head, error) {
	h, err := s.Head(ctx, channel)
	if errors.Is(err, repo.ErrNoRelease) {
		err = s.noChannel(ctx, channel, err)
	}
	if err != nil {
		return nil, err
	}
	return h, s.remember()
}

// noChannel names the channel that was probably meant. A push makes a channel, so
// to push is the other remedy.
func (s *session) noChannel(ctx context.Context, channel string, err error) error {
	known, lerr := s.Channels(ctx)
	if lerr != nil || len(known) == 0 {
		return err
	}
	return &absentError{fmt.Sprintf("channel %q %v", channel, repo.ErrNoRelease), fleet.Suggest(channel, known) + " nightferry releases STORE lists the channels"}
}

// release reads a release by number, 0 for the head's.
func (s *session) release(ctx context.Context, channel string, number trust.ReleaseNumber) (*repo.Release, error) {
	h, err := s.head(ctx, channel)
	if err != nil {
		return nil, err
	}
	if number == 0 || number == h.Number {
		return s.Release(ctx, channel, h.Number, h.Release)
	}
	if number > h.Number {
		return nil, &absentError{fmt.Sprintf("release %d of %q does not exist: its newest is %d", number, channel, h.Number), "nightferry releases STORE CHANNEL lists them"}
	}
	return s.ReleaseBelow(ctx, channel, h, number)
}

// fetch returns the options of fetches.
func (s *session) fetch() repo.FetchOptions {
	return repo.FetchOptions{Connections: s.flags.connections, OnRetry: s.e.retry}
}

// entries streams a release's tree, reading its pages into a folder that done
// removes.
func (s *session) entries(ctx context.Context, rel *repo.Release) (next manifest.Next, pages *pageDir, err error) {
	if pages, err = newPageDir(); err != nil {
		return nil, nil, err
	}
	if err = s.Manifests(pages).Load(ctx, s.Index, rel.PageIDs(), s.fetch()); err != nil {
		return nil, nil, errors.Join(err, pages.done())
	}
	return s.Manifests(pages).Entries(rel), pages, nil
}

// object reads a whole object of at most max bytes.
func (s *session) object(ctx context.Context, key string, max int64) ([]byte, error) {
	return readObject(ctx, s.Store(), key, max)
}

func readObject(ctx context.Context, store bucket.Store, key string, max int64) ([]byte, error) {
	body, info, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if info.Size > max {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read: %w", key, info.Size, max, frame.ErrDamaged)
	}
	return io.ReadAll(body)
}

// openState opens the folder in which this account keeps what it remembers of
// a repository, and its caches.
func (e *env) openState(id trust.RepoID) (*durable.Root, error) {
	dir, err := stateFolder(e.stateDir)
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, id.String())
	if err := durable.MkdirPrivate(dir); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	return durable.Open(dir, durable.Options{Trusted: true})
}

// stateFolder returns the folder for all of this account's state, and makes it. dir
// is the one that the command line names, if it does.
func stateFolder(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv(envState)
	}
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("where to keep state: %w: name a folder with --state DIR or NIGHTFERRY_STATE", err)
		}
		dir = filepath.Join(cache, "nightferry")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the state folder: %w", err)
	}
	return dir, nil
}

// shownStore is a store's URL without what may be secret in it.
func shownStore(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the store"
	}
	u.User = nil
	if i := strings.IndexByte(raw, '?'); i >= 0 || u.RawQuery != "" {
		u.RawQuery = ""
	}
	return u.String()
}
