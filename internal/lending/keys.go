package lending

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/ledger"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

var errForeign = errors.New("none of this site's releases needs it")

// mayRead returns a nil error if the site may read the object, and errForeign if none of its
// releases needs it. It returns absent if the object does not exist and the site needs to know
// that.
func (s *Service) mayRead(ctx context.Context, a wire.Address, releases []releases.Key, key string) (absent bool, err error) {
	switch first, rest, _ := strings.Cut(key, "/"); first {
	case "format", haltKey:
		if rest == "" {
			return false, nil
		}
	case "trust":
		n, err := strconv.ParseUint(rest, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != rest || n == 0 {
			return false, errForeign
		}
		return n > s.o.Repo().Memory().Trust, nil
	case "index":
		var d digest.Digest
		if key == repo.RootKey || (d.UnmarshalText([]byte(rest)) == nil && repo.SegmentKey(d) == key) {
			return false, nil
		}
	case "packs":
		var d digest.Digest
		if d.UnmarshalText([]byte(key[strings.LastIndexByte(key, '/')+1:])) != nil || repo.PackKey(d) != key {
			return false, errForeign
		}
		for _, k := range releases {
			if ok, err := s.packs.isNeeded(ctx, k, d); ok || err != nil {
				return false, err
			}
		}
	case "channels":
		return s.mayReadChannel(ctx, a, key)
	}
	return false, errForeign
}

func (s *Service) mayReadChannel(ctx context.Context, a wire.Address, key string) (absent bool, err error) {
	r := s.o.Repo()
	f, _ := s.o.Fleet()
	site := f.Site(a.Site)
	if site == nil { // a reload has removed the site
		return false, errForeign
	}
	for _, p := range site.Placements {
		name := r.Keys().Name(p.Channel)
		if key == repo.HeadKey(name) {
			_, published := s.o.Newest(p.Channel)
			return !published, nil
		}
		n, err := strconv.ParseUint(key[strings.LastIndexByte(key, '/')+1:], 10, 64)
		if err == nil && n > 0 && key == repo.ReleaseKey(name, trust.ReleaseNumber(n)) {
			if rel, ok := s.o.Newest(p.Channel); ok && rel.Number == trust.ReleaseNumber(n) {
				return false, nil
			}
			return s.isAbsent(ctx, key)
		}
	}
	return false, errForeign
}

// isAbsent reports whether the store lacks an object.
func (s *Service) isAbsent(ctx context.Context, key string) (bool, error) {
	body, _, err := s.o.Store().Get(ctx, key, 0, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, body.Close()
}

// readableReleases lists the releases that a site may read: its desired releases, the releases that it
// holds, and those of its current runs.
func (s *Service) readableReleases(ctx context.Context, a wire.Address) []releases.Key {
	keys := []releases.Key{}
	add := func(channel string, number trust.ReleaseNumber, d trust.ReleaseDigest) {
		k := releases.Key{Channel: channel, Number: number, Digest: d}
		if number > 0 && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	known := s.o.Site(a)
	for _, d := range known.Desired {
		add(d.Channel, d.Number, d.Release)
	}
	f, _ := s.o.Fleet()
	site := f.Site(a.Site)
	own := func(channel string) bool { return site != nil && site.Placement(channel) != nil }
	held, err := s.o.Ledger.Holdings(ctx, ledger.Filter{Domain: a.Domain, Site: a.Site})
	for _, h := range held {
		ok := h.Verified.Equal(h.Attested)
		if h.Verified.IsZero() { // the site has enrolled again since: it counts like the release of a run
			rel, err := s.o.Ledger.Release(ctx, h.Channel, h.Number)
			ok = err == nil && rel.Digest == h.Release
		}
		if own(h.Channel) && ok {
			add(h.Channel, h.Number, h.Release)
		}
	}
	open, err2 := s.o.Ledger.Runs(ctx, ledger.RunFilter{Domain: a.Domain, Site: a.Site, Open: true, Limit: 16})
	for _, run := range open {
		// A site names the release of its run itself. The release counts only if the Core has
		// published it and may have sent it to the site.
		if rel, err := s.o.Ledger.Release(ctx, run.Channel, run.Number); own(run.Channel) && err == nil && rel.Digest == run.Release && s.wasNewest(ctx, rel, known.Enrolled) {
			add(run.Channel, run.Number, run.Release)
		}
	}
	if err := errors.Join(err, err2); err != nil {
		s.o.Notices.LedgerFailed(err)
	}
	return keys
}

// wasNewest reports whether a release was the newest of its channel at some time after since.
func (s *Service) wasNewest(ctx context.Context, rel ledger.Release, since time.Time) bool {
	list, err := s.o.Ledger.Releases(ctx, rel.Channel, 0) // the newest first
	if err != nil {
		s.o.Notices.LedgerFailed(err)
		return false
	}
	for _, next := range slices.Backward(list) {
		if next.Number > rel.Number {
			return !next.Published.Before(since.Truncate(time.Second)) // release times have a resolution of one second
		}
	}
	return true
}
