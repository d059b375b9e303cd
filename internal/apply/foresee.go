package apply

import (
	"context"
	"errors"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/repo"
)

// Foreseen is what a run would need of the store.
type Foreseen struct {
	Index  uint64   // sequence of the index root that told it
	Needed int64    // bytes of content, at most: what lies here and was touched or moved counts as lacking
	Packs  []string // keys of the packs that have it, each once
}

// Foresee reads of the store what Run would read before its first chunk, and
// finds out which packs it would need then, so that who must ask somebody for
// leave can ask ahead. It keeps the pages that it fetched for that Run, reads
// none of the target's files and changes none. It returns nil when the index
// root is still the one of sequence since, which is not 0: what was foreseen
// with it holds.
func Foresee(ctx context.Context, store bucket.Store, target string, o Options, since uint64) (*Foreseen, error) {
	o.DryRun, o.OnEvent = true, nil
	if err := o.validate(); err != nil {
		return nil, err
	}
	s, done, err := open(target, o)
	if err != nil {
		return nil, err
	}
	f, err := s.foresee(ctx, store, since)
	return f, errors.Join(err, done())
}

func (s *site) foresee(ctx context.Context, store bucket.Store, since uint64) (*Foreseen, error) {
	head, err := s.connect(ctx, store, nil)
	if err != nil {
		return nil, err
	}
	had, err := s.applied()
	if err != nil {
		return nil, err
	}
	number, want, err := s.choose(head, had)
	if err != nil {
		return nil, err
	}
	x, err := s.at(ctx)
	if err != nil {
		return nil, err
	}
	if since != 0 && x.Root().Sequence == since {
		return nil, nil
	}
	rel, err := s.release(ctx, head, number, want)
	if err != nil {
		return nil, err
	}
	if err := s.suits(rel); err != nil {
		return nil, err
	}
	if err := s.repo.LoadPages(ctx, s.at, rel.PageIDs(), s.pages, s.fetchOptions()); err != nil {
		return nil, err
	}
	changes, oldLists, err := s.plan(ctx, s.repo.Entries(rel, s.pages), rel.Totals)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		if c := &changes[i]; c.state == stUnknown && c.act == actPlace {
			c.state = stLacking // only reading it would tell
		}
	}
	g, lacking, lists := s.newStager(changes)
	if err := s.repo.LoadPages(ctx, s.at, lists, s.pages, s.fetchOptions()); err != nil {
		return nil, err
	}
	if err := g.list(ctx, lacking, nil); err != nil {
		return nil, err
	}
	if err := g.estimate(ctx, oldLists); err != nil {
		return nil, err
	}
	places, missing, err := x.Locate(ctx, g.lacking())
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, g.missing(&repo.MissingError{Chunks: missing})
	}
	return &Foreseen{Index: x.Root().Sequence, Needed: s.res.BytesNeeded, Packs: packsOf(x, places)}, nil
}

func packsOf(x *repo.Index, places []repo.Place) (keys []string) {
	packs, seen := x.Packs(), map[digest.Digest]struct{}{}
	for i := range places {
		d := packs[places[i].Pack].Digest
		if _, ok := seen[d]; !ok {
			seen[d] = struct{}{}
			keys = append(keys, repo.PackKey(d))
		}
	}
	return keys
}
