package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// chain is one channel as fsck found it.
type chain struct {
	scope    string
	name     string
	releases []*repo.Release // from the head back along the parents
}

// readChains reads every channel's head and its chain of releases, and returns
// the keys that belong to neither.
func (f *fsck) readChains(ctx context.Context) (strange []bucket.Info, err error) {
	stored, strange, err := f.r.Stored(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range stored {
		if err := f.readChain(ctx, s); err != nil {
			return nil, err
		}
	}
	return strange, nil
}

func (f *fsck) readChain(ctx context.Context, s repo.Stored) error {
	c := &chain{scope: s.Scope, name: s.Scope}
	inChain := map[trust.ReleaseNumber]bool{}
	var top trust.ReleaseNumber
	if s.Head {
		name, err := f.nameOf(ctx, s)
		if err != nil {
			return f.reportDamage(Finding{Kind: KindHead, Key: repo.HeadKey(s.Scope), Remedy: remedyPush}, err)
		}
		c.name = name
		head, err := f.r.Head(ctx, name)
		if err != nil {
			return f.reportDamage(Finding{Kind: KindHead, Key: repo.HeadKey(s.Scope), Channel: name, Remedy: remedyPush}, err)
		}
		top = head.Number
		rel, err := f.r.StoredRelease(ctx, s.Scope, head.Number, head.Release)
		if err != nil {
			return f.reportDamage(Finding{Kind: KindRelease, Key: repo.ReleaseKey(s.Scope, head.Number), Channel: name, Release: head.Number, Remedy: remedyPush}, err)
		}
		f.rep.Channels++
		if err := f.followChain(ctx, c, rel, s.Releases, inChain); err != nil {
			return err
		}
		f.chains = append(f.chains, c)
	} else if err := checkHeadMissing(ctx, f.r, s); err != nil {
		return f.reportDamage(Finding{Kind: KindHead, Key: repo.HeadKey(s.Scope), Channel: c.name, Remedy: remedyPush}, err)
	}
	for _, rel := range s.Releases {
		if inChain[rel.Number] {
			continue
		}
		why, remedy := "it is in no head's chain", remedyGC
		if rel.Number > top {
			why, remedy = "no head names it: its push died, or is about to end", remedyPast
		}
		f.addFinding(Finding{Severity: Garbage, Kind: KindRelease, Key: repo.ReleaseKey(s.Scope, rel.Number), Channel: c.name, Release: rel.Number, Cause: why, Remedy: remedy})
	}
	return nil
}

// nameOf returns a channel's name. If the head or its release is damaged, it
// takes the name from any release of the channel.
func (f *fsck) nameOf(ctx context.Context, s repo.Stored) (string, error) {
	name, err := f.r.ChannelOf(ctx, s.Scope)
	if err == nil || !isStoredFault(err) {
		return name, err
	}
	for _, rel := range slices.Backward(s.Releases) {
		if r, relErr := f.r.StoredRelease(ctx, s.Scope, rel.Number, trust.ReleaseDigest{}); relErr == nil {
			return r.Channel, nil
		} else if !isStoredFault(relErr) {
			return "", relErr
		}
	}
	return "", err
}

// followChain walks a chain. The chain may end before the first release, because gc
// removes older ones.
func (f *fsck) followChain(ctx context.Context, c *chain, rel *repo.Release, releases []repo.StoredRelease, inChain map[trust.ReleaseNumber]bool) error {
	for {
		c.releases = append(c.releases, rel)
		inChain[rel.Number] = true
		f.rep.Releases++
		f.emitEvent(Event{Phase: "read releases", Key: repo.ReleaseKey(c.scope, rel.Number), Done: int64(f.rep.Releases)})
		if rel.Parent.IsZero() {
			return nil
		}
		var next *repo.Release
		for _, s := range slices.Backward(releases) {
			if s.Number >= rel.Number {
				continue
			}
			found, err := f.r.StoredRelease(ctx, c.scope, s.Number, rel.Parent)
			if err == nil {
				next = found
				break
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !isStoredFault(err) {
				return err
			}
			// A release of another push, or the altered parent: a leftover at
			// least has a good signature.
			if _, err := f.r.StoredRelease(ctx, c.scope, s.Number, trust.ReleaseDigest{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
				inChain[s.Number] = true // reported here, not as garbage
				if err := f.reportDamage(Finding{Kind: KindRelease, Key: repo.ReleaseKey(c.scope, s.Number), Channel: c.name, Release: s.Number, Remedy: remedyRestore}, err); err != nil {
					return err
				}
			}
		}
		if next == nil {
			return nil
		}
		rel = next
	}
}

// checkReleases proves the manifests of all releases and finds the chunks that
// they need and that cannot be read.
func (f *fsck) checkReleases(ctx context.Context) error {
	m := newMarker(reader{x: f.x, known: f.known})
	for _, c := range f.chains {
		for _, rel := range c.releases {
			if err := f.checkRelease(ctx, m, c, rel); err != nil {
				return err
			}
		}
	}
	lostIDs := map[uint64]bool{}
	f.rep.Chunks = m.live.len()
	cur := cursor{l: &m.live, missing: func(v uint64) { lostIDs[v] = true }}
	err := f.segs.Walk(ctx, f.x, func(places []repo.Place) error {
		v := idPrefix(places[0].ID)
		if cur.hasPrefix(v) && !slices.ContainsFunc(places, func(p repo.Place) bool {
			_, isBad := f.bad[f.x.Packs()[p.Pack].Digest]
			return !isBad
		}) {
			lostIDs[v] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	cur.finishMissing()
	f.rep.LostChunks = int64(len(lostIDs))
	if len(lostIDs) == 0 {
		return nil
	}
	for _, c := range f.chains {
		for _, rel := range c.releases {
			if err := f.nameFiles(ctx, m, c, rel, lostIDs); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRelease reads a release's pages in order and proves the release's claims
// about them.
func (f *fsck) checkRelease(ctx context.Context, m *marker, c *chain, rel *repo.Release) error {
	check := manifest.Checker{Portable: rel.Portable}
	page := 0
	err := m.readRelease(ctx, rel, func(digest.Digest) bool { return false }, func(entries []manifest.Entry) error {
		ref := rel.Pages[page]
		page++
		if int64(len(entries)) != ref.Entries || entries[0].Path != ref.First {
			return fmt.Errorf("manifest page %s holds %d entries from %q, the release says %d from %q", ref.ID.Short(), len(entries), entries[0].Path, ref.Entries, ref.First)
		}
		fresh := !m.markOnce(ref.ID)
		for i := range entries {
			if err := check.Add(&entries[i]); err != nil {
				return err
			}
			f.rep.Files++
		}
		if !fresh {
			return nil
		}
		return m.markEntries(ctx, entries)
	})
	if err == nil {
		err = check.Finish(&rel.Release)
	}
	if err != nil {
		if _, there := f.r.StoredRelease(ctx, c.scope, rel.Number, rel.Digest); errors.Is(there, fs.ErrNotExist) {
			return nil // gc has removed the release meanwhile
		}
		// Unreadable pages are needed all the same.
		for _, p := range rel.Pages {
			m.markOnce(p.ID)
		}
		return f.reportDamage(Finding{Kind: KindPage, Channel: c.name, Release: rel.Number, Remedy: remedyForget}, err)
	}
	return nil
}

// nameFiles names the files of a release that lack a chunk.
func (f *fsck) nameFiles(ctx context.Context, m *marker, c *chain, rel *repo.Release, lostIDs map[uint64]bool) error {
	named, more := 0, 0
	err := m.readRelease(ctx, rel, func(digest.Digest) bool { return false }, func(entries []manifest.Entry) error {
		for i := range entries {
			e := &entries[i]
			n := 0
			count := func(refs []chunk.Ref) error {
				for _, ref := range refs {
					if !ref.Hole() && lostIDs[idPrefix(ref.ID)] {
						n++
					}
				}
				return nil
			}
			if err := count(e.Refs()); err != nil {
				return err
			}
			for _, l := range e.Lists {
				if lostIDs[idPrefix(l.ID)] {
					n++
				} else if err := m.readLists(ctx, []manifest.ListRef{l}, count); err != nil {
					return err
				}
			}
			switch {
			case n == 0:
			case named == maxPaths:
				more++
			default:
				named++
				f.addFinding(Finding{Kind: KindFile, Channel: c.name, Release: rel.Number, Path: e.Path, Cause: fmt.Sprintf("%d of its chunks cannot be read", n), Remedy: remedyForget})
			}
		}
		return nil
	})
	if more > 0 {
		f.addFinding(Finding{Kind: KindFile, Channel: c.name, Release: rel.Number, Cause: fmt.Sprintf("%d more files lack chunks", more), Remedy: remedyForget})
	}
	if err != nil && isStoredFault(err) {
		return nil // the unreadable manifest has been reported
	}
	return err
}
