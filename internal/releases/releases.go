// Package releases reads the trees of published releases for the services of the
// Core. It keeps the manifest pages that it has read on disk.
package releases

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// Key names a release.
type Key struct {
	Channel string
	Number  trust.ReleaseNumber
	Digest  trust.ReleaseDigest
}

// Reader is safe for concurrent use.
type Reader struct {
	repo   func() *repo.Repo
	pages  pages
	deltas deltas
	last   atomic.Pointer[kept]
}

// kept is the release that was read last.
type kept struct {
	key Key
	rel *repo.Release
}

// New returns a Reader that keeps pages in dir. open returns the repository in use
// now.
func New(dir *durable.Root, open func() *repo.Repo) *Reader {
	return &Reader{repo: open, pages: pages{dir: dir}}
}

// Release reads a release and remembers the last one.
func (r *Reader) Release(ctx context.Context, k Key) (*repo.Release, error) {
	if l := r.last.Load(); l != nil && l.key == k {
		return l.rel, nil
	}
	rel, err := r.repo().Release(ctx, k.Channel, k.Number, k.Digest)
	if err == nil {
		r.last.Store(&kept{k, rel})
	}
	return rel, err
}

// Entries opens the tree of a release.
func (r *Reader) Entries(ctx context.Context, k Key) (*repo.Release, manifest.Next, error) {
	return r.EntriesOf(ctx, r.repo(), k)
}

// EntriesOf is Entries in an open repository.
func (r *Reader) EntriesOf(ctx context.Context, open *repo.Repo, k Key) (*repo.Release, manifest.Next, error) {
	rel, err := open.Release(ctx, k.Channel, k.Number, k.Digest)
	if err != nil {
		return nil, nil, err
	}
	if err := open.Manifests(&r.pages).Load(ctx, open.Index, rel.PageIDs(), repo.FetchOptions{}); err != nil {
		return nil, nil, err
	}
	return rel, open.Manifests(&r.pages).Entries(rel), nil
}

// Refs returns the chunks of an entry. It reads the lists of a large file.
func (r *Reader) Refs(ctx context.Context, open *repo.Repo, e *manifest.Entry) ([]chunk.Ref, error) {
	if len(e.Lists) > 0 {
		ids := make([]digest.Digest, len(e.Lists))
		for i, l := range e.Lists {
			ids[i] = l.ID
		}
		if err := open.Manifests(&r.pages).Load(ctx, open.Index, ids, repo.FetchOptions{}); err != nil {
			return nil, err
		}
	}
	return open.Manifests(&r.pages).Refs(e)
}

// Find returns the entry at a path of a release, or nil.
func (r *Reader) Find(ctx context.Context, k Key, path string) (*manifest.Entry, error) {
	open := r.repo()
	rel, err := open.Release(ctx, k.Channel, k.Number, k.Digest)
	if err != nil {
		return nil, err
	}
	return open.Manifests(&r.pages).Find(ctx, open.Index, rel, path, repo.FetchOptions{})
}

// Completions returns the first n paths of a release that begin with prefix, each up to its next slash: a folder's ends with
// one, and stands for all below it.
func (r *Reader) Completions(ctx context.Context, k Key, prefix string, n int) (list []string, err error) {
	rel, err := r.Release(ctx, k)
	if err != nil {
		return nil, err
	}
	open := r.repo()
	for from := prefix; len(list) < n; {
		e, err := open.Manifests(&r.pages).Seek(ctx, open.Index, rel, from, repo.FetchOptions{})
		if err != nil || e == nil || !strings.HasPrefix(e.Path, prefix) {
			return list, err
		}
		path := e.Path
		from = path + "\x00" // no path holds this byte, nor the other
		if name, _, below := strings.Cut(path[len(prefix):], "/"); below || e.Kind == manifest.Dir {
			path = prefix + name + "/"
			from = path + "\xff" // follows all below the folder
		}
		list = append(list, path)
	}
	return list, nil
}

// Finder returns a finder for one report.
func (r *Reader) Finder() *Finder { return &Finder{reader: r} }

// Prune removes kept pages that are old, or too many.
func (r *Reader) Prune(now time.Time) error { return r.pages.prune(now) }
