package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/window"
	"nightferry/internal/wire"
)

// lendFor is the minimum life of a presigned URL, unless its credential ends earlier. It lets a
// site finish a run if the Core stops. If a window of the site ends later, the URL lives until
// lendSpare after that end, so that the window can open without the Core. It never lives longer
// than lendMost, the maximum that S3 signs.
const (
	lendFor   = 24 * time.Hour
	lendMost  = 7 * 24 * time.Hour
	lendSpare = time.Hour
)

// lendLife returns the life of URLs that are presigned for a site now.
func (c *Core) lendLife(a wire.Address) time.Duration {
	s := c.settings.Load()
	site, now, life := s.Fleet.Site(a.Site), c.wall(), lendFor
	if site == nil {
		return life
	}
	for _, p := range site.Placements {
		rule, ok := s.nights.rules[[2]string{site.Name, p.Channel}]
		if !ok {
			continue // it may move at any time
		}
		w, ok := window.Open(now, s.nights.places[site.Name], rule)
		if !ok {
			w, ok = window.Next(now, s.nights.places[site.Name], rule)
		}
		if ok {
			life = max(life, c.motion.Real(w.End.Sub(now))+lendSpare)
		}
	}
	return min(life, lendMost)
}

const (
	// maxAsks bounds the waiting asks of one site. It covers all that two runs request ahead of
	// use. Further asks are dropped, and the site sends them again.
	maxAsks = 32
	// At most siteAsks of one site, and allAsks of all sites, are answered at once, so that no
	// site delays the others.
	siteAsks, allAsks = 4, 16
)

// ask answers in its own goroutine: finding the packs of a release is slow and must not delay
// messages of other sites.
func (c *Core) ask(ctx context.Context, m message, x *site, v *wire.Ask) {
	if x.asks.Add(1) > maxAsks {
		x.asks.Add(-1)
		c.count.refusal("overrun")
		return
	}
	c.asides.Go(func() {
		defer x.asks.Add(-1)
		for _, turn := range []chan struct{}{x.asking, c.asking} { // the site's own first: while it waits for that, it holds none of the shared ones
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-ctx.Done():
				return
			}
		}
		c.guard(m, func() { c.lend(ctx, m, v) })
	})
}

// lend presigns a URL for every key that the site's releases need, and refuses the others.
func (c *Core) lend(ctx context.Context, m message, v *wire.Ask) {
	if len(v.Keys) > wire.MaxAsk {
		c.refuse(ctx, m, "forged", fmt.Sprintf("it asks for %d objects, at most %d at once", len(v.Keys), wire.MaxAsk), Malformed)
		return
	}
	now, life := c.now(), c.lendLife(m.from)
	out := wire.URLs{ID: v.ID, Until: now.Add(life).Unix()}
	b := c.store.Load()
	// All URLs get the earliest expiry, since a credential may end sooner.
	presign := func(key string) (string, error) {
		raw, until, err := b.PresignGet(ctx, key, now, life)
		if err == nil {
			out.Until = min(out.Until, until.Unix())
		}
		return raw, err
	}
	var foreign []string
	var releases []releaseKey
	for _, key := range v.Keys {
		if releases == nil {
			releases = c.readable(ctx, m.from)
		}
		absent, err := c.mayRead(ctx, m.from, releases, key)
		var url string
		if err == nil && !absent {
			url, err = presign(key)
		}
		switch {
		case absent:
			out.Refused = append(out.Refused, wire.Refused{Key: key, Absent: true, Why: "the store has no such object"})
		case errors.Is(err, errForeign):
			foreign = append(foreign, clip(key))
			out.Refused = append(out.Refused, wire.Refused{Key: key, Why: err.Error()})
		case err != nil:
			c.trouble("lend", err)
			out.Refused = append(out.Refused, wire.Refused{Key: key, Why: "the Core could not find out now: ask again"})
		default:
			out.Lent = append(out.Lent, wire.URL{Key: key, URL: url})
		}
	}
	if len(foreign) > 0 {
		c.refuseAsk(ctx, m, foreign)
	}
	c.count.urls.Add(int64(len(out.Lent)))
	// Add the URL of the halt orders, so that they can be read as long as the other objects.
	send := func() error {
		all := out
		if len(out.Lent) > 0 && !slices.Contains(v.Keys, "halt") {
			url, err := presign("halt")
			if err != nil {
				return err
			}
			all.Until = out.Until
			all.Lent = append(slices.Clone(out.Lent), wire.URL{Key: "halt", URL: url})
		}
		return c.send(m.from, wire.VerbURLs, 0, &all)
	}
	err := send()
	for errors.Is(err, wire.ErrTooLarge) && len(out.Lent) > 1 {
		for _, u := range out.Lent[len(out.Lent)/2:] {
			out.Refused = append(out.Refused, wire.Refused{Key: u.Key, Why: "too many for one answer: ask again"})
		}
		out.Lent = out.Lent[:len(out.Lent)/2]
		err = send()
	}
	if err != nil && ctx.Err() == nil {
		c.trouble("send", err)
	}
}

// refuseAsk records an audit entry for objects that a site requested but does not need.
func (c *Core) refuseAsk(ctx context.Context, m message, keys []string) {
	why := fmt.Sprintf("it asked for %q", keys[0])
	if len(keys) > 1 {
		why += fmt.Sprintf(" and %d more", len(keys)-1)
	}
	c.count.refusal("ask")
	c.alarms.raise(BadAsk, "", m.from, fmt.Sprintf("site %s: %s, which its releases do not need", m.from.Site, why))
	c.say(Event{Kind: Refused, Domain: m.from.Domain, Site: m.from.Site, Text: "ask: " + why})
	if c.auditDue(m.from, "ask") {
		if err := c.ledger.Audit(ctx, ledger.Deed{Who: m.from.String(), What: "refused ask", Object: m.from.String(), Detail: why}); err != nil {
			c.ledgerFailed(err)
		}
	}
}

var errForeign = errors.New("none of this site's releases needs it")

// mayRead returns a nil error if the site may read the object, and errForeign if none of its
// releases needs it. It returns absent if the object does not exist and the site needs to know
// that.
func (c *Core) mayRead(ctx context.Context, a wire.Address, releases []releaseKey, key string) (absent bool, err error) {
	switch first, rest, _ := strings.Cut(key, "/"); first {
	case "format", "halt":
		if rest == "" {
			return false, nil
		}
	case "trust":
		n, err := strconv.ParseUint(rest, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != rest || n == 0 {
			return false, errForeign
		}
		return n > c.repo.Load().Memory().Trust, nil
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
			if ok, err := c.shelf.needed(ctx, k, d); ok || err != nil {
				return false, err
			}
		}
	case "channels":
		return c.mayReadChannel(ctx, a, key)
	}
	return false, errForeign
}

func (c *Core) mayReadChannel(ctx context.Context, a wire.Address, key string) (absent bool, err error) {
	r := c.repo.Load()
	s := c.settings.Load().Fleet.Site(a.Site)
	if s == nil { // a reload has removed the site
		return false, errForeign
	}
	for _, p := range s.Placements {
		name := r.Keys().Name(p.Channel)
		if key == repo.HeadKey(name) {
			_, published := c.newest.of(p.Channel)
			return !published, nil
		}
		n, err := strconv.ParseUint(key[strings.LastIndexByte(key, '/')+1:], 10, 64)
		if err == nil && n > 0 && key == repo.ReleaseKey(name, n) {
			if rel, ok := c.newest.of(p.Channel); ok && rel.Number == n {
				return false, nil
			}
			return c.absent(ctx, key)
		}
	}
	return false, errForeign
}

// absent reports whether the store lacks an object.
func (c *Core) absent(ctx context.Context, key string) (bool, error) {
	body, _, err := c.store.Load().Get(ctx, key, 0, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, body.Close()
}

// readable lists the releases that a site may read: its desired releases, the releases that it
// holds, and those of its current runs.
func (c *Core) readable(ctx context.Context, a wire.Address) []releaseKey {
	keys := []releaseKey{}
	add := func(channel string, number uint64, d digest.Digest) {
		k := releaseKey{channel, number, d}
		if number > 0 && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	x := c.fleet.get(a)
	var enrolled time.Time
	x.mu.Lock()
	if x.identity != nil {
		enrolled = x.identity.Enrolled
	}
	x.mu.Unlock()
	for _, d := range c.desired.Of(a).Desired {
		add(d.Channel, d.Number, d.Release)
	}
	s := c.settings.Load().Fleet.Site(a.Site)
	own := func(channel string) bool { return s != nil && s.Placement(channel) != nil }
	held, err := c.ledger.Holdings(ctx, ledger.Filter{Domain: a.Domain, Site: a.Site})
	for _, h := range held {
		ok := h.Verified.Equal(h.Attested)
		if h.Verified.IsZero() { // the site has enrolled again since: it counts like the release of a run
			rel, err := c.ledger.Release(ctx, h.Channel, h.Number)
			ok = err == nil && rel.Digest == h.Release
		}
		if own(h.Channel) && ok {
			add(h.Channel, h.Number, h.Release)
		}
	}
	open, err2 := c.ledger.Runs(ctx, ledger.RunFilter{Domain: a.Domain, Site: a.Site, Open: true, Limit: 16})
	for _, run := range open {
		// A site names the release of its run itself. The release counts only if the Core has
		// published it and may have sent it to the site.
		if rel, err := c.ledger.Release(ctx, run.Channel, run.Number); own(run.Channel) && err == nil && rel.Digest == run.Release && c.wasNewest(ctx, rel, enrolled) {
			add(run.Channel, run.Number, run.Release)
		}
	}
	if err := errors.Join(err, err2); err != nil {
		c.ledgerFailed(err)
	}
	return keys
}

// wasNewest reports whether a release was the newest of its channel at some time after since.
func (c *Core) wasNewest(ctx context.Context, rel ledger.Release, since time.Time) bool {
	list, err := c.ledger.Releases(ctx, rel.Channel, 0) // the newest first
	if err != nil {
		c.ledgerFailed(err)
		return false
	}
	for _, next := range slices.Backward(list) {
		if next.Number > rel.Number {
			return !next.Published.Before(since.Truncate(time.Second)) // release times have a resolution of one second
		}
	}
	return true
}
