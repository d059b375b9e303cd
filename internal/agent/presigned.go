package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/spool"
)

const (
	trustPrefix = "trust/"
	// keptNext marks the kept URLs of the next trust documents, which came with that of the halt object.
	keptNext = "next/"
	// absentFor is how long the Core's word that there is no newer trust document
	// counts while it is away: as long as a URL may that it lends.
	absentFor = bucket.MaxPresign
	// maxRequestedLife is the life that is not asked to be longer: the Core lends for a week
	// at most, and would be asked for the same each hour.
	maxRequestedLife = 6 * 24 * time.Hour
)

// keepPresigned makes sure that keys are lent up to a time, as far as the Core lends for
// so long, and returns what is to be kept so that another process has it, too.
func (u *urls) keepPresigned(ctx context.Context, keys []string, until time.Time) ([]spool.Presigned, error) {
	u.mu.Lock()
	if most := u.store().Add(maxRequestedLife); until.After(most) {
		until = most
	}
	asked := map[string]*wanted{}
	for _, key := range keys {
		u.kept[key] = true
		if have, ok := u.lent[key]; key != haltKey && (!ok || have.until.Before(until)) {
			asked[key] = u.wantKey(key)
		}
	}
	u.mu.Unlock()
	for key, w := range asked {
		for away := true; away; {
			var err error
			if away, err = u.awaitURL(ctx, key, w); err != nil {
				return nil, err
			}
		}
		if w.err != nil && !w.absent {
			return nil, w.err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []spool.Presigned
	var last time.Time
	for _, key := range keys {
		if have, ok := u.lent[key]; ok {
			all = append(all, spool.Presigned{Key: key, URL: have.url, Until: have.until.Unix()})
			if have.until.After(last) {
				last = have.until
			}
		} else if end, ok := u.absent[key]; ok {
			all = append(all, spool.Presigned{Key: key, Until: end.Unix()})
		}
	}
	if h, ok := u.haltFor(last); ok && slices.Contains(keys, haltKey) {
		all = append(all, spool.Presigned{Key: haltKey, URL: h.url, Until: h.until.Unix()})
		for key, raw := range h.next {
			all = append(all, spool.Presigned{Key: keptNext + key, URL: raw, Until: h.until.Unix()})
		}
	}
	return all, nil
}

// restoreKept takes up what an earlier process has kept. newest is the key of the
// first trust document that nobody here has seen: of an older one it is known
// that it is there.
func (u *urls) restoreKept(all []spool.Presigned, newest string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := map[string]string{}
	for _, l := range all {
		if key, ok := strings.CutPrefix(l.Key, keptNext); ok {
			next[key] = l.URL
		}
	}
	for _, l := range all {
		end := time.Unix(l.Until, 0)
		switch {
		case strings.HasPrefix(l.Key, keptNext):
		case l.URL != "" && l.Key == haltKey:
			u.keepHalt(haltURLs{presignedURL{url: l.URL, until: end}, next})
		case l.URL != "":
			u.lent[l.Key] = presignedURL{url: l.URL, until: end}
			u.kept[l.Key] = true
		case l.Key == newest:
			u.absent[l.Key] = end
		}
	}
}

// releaseKeys lets go of keys that are not needed any more.
func (u *urls) releaseKeys(keys []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, key := range keys {
		delete(u.kept, key)
	}
}

// forgetAbsent drops what the Core said of trust documents: there is a newer one.
func (u *urls) forgetAbsent() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.absent)
}

// knownAbsent reports whether the Core, which does not answer now, has said not
// too long ago that there is no such object. The caller holds u.mu.
func (u *urls) knownAbsent(key string) bool {
	end, ok := u.absent[key]
	return ok && u.store().Before(end)
}
