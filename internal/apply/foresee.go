package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/repo"
)

// Foreseen describes the data that a run would need from the store.
type Foreseen struct {
	Index  uint64   // sequence of the index root that it is based on
	Needed int64    // bytes of content, at most: files here that were touched or moved count as lacking
	Packs  []string // keys of the packs that hold it, each once
}

var errUnrecorded = errors.New("the target has lost its record: only its run can tell what it holds")

// Foresee reads from the store everything that Run reads before its first chunk, and returns the packs that the run
// would need. An agent can thus request presigned URLs ahead of the run. Foresee caches the manifest pages that it
// fetches. It reads and changes none of the target's files. It returns nil if the sequence of the index root is
// still since, and since is not 0: the previous result still holds.
func Foresee(ctx context.Context, store bucket.Store, target string, o Options, since uint64) (*Foreseen, error) {
	o.DryRun, o.OnEvent = true, nil
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Held != nil && o.Held.Replaced {
		o.Held = nil // the plan of a new server's folder; the run examines its content
	}
	if unrecorded, err := checkKept(target, o); err != nil || unrecorded {
		return nil, fmt.Errorf("pull into %q: %w", target, cmp.Or(err, errUnrecorded))
	}
	s, done, err := openSite(target, o)
	if err != nil {
		return nil, err
	}
	f, err := s.foreseeRun(ctx, store, since)
	return f, errors.Join(err, done())
}

func (s *site) foreseeRun(ctx context.Context, store bucket.Store, since uint64) (*Foreseen, error) {
	head, err := s.remote.openRepository(ctx, store, nil)
	if err != nil {
		return nil, err
	}
	had, err := s.loadHeader()
	if err != nil {
		return nil, err
	}
	number, want, err := s.chooseRelease(head, had)
	if err != nil {
		return nil, err
	}
	x, err := s.remote.loadIndex(ctx)
	if err != nil {
		return nil, err
	}
	if since != 0 && x.Root().Sequence == since {
		return nil, nil
	}
	rel, err := s.remote.readRelease(ctx, head, number, want)
	if err != nil {
		return nil, err
	}
	if err := s.checkSystem(rel); err != nil {
		return nil, err
	}
	if err := s.remote.repo.Manifests(s.remote.pages).Load(ctx, s.remote.loadIndex, rel.PageIDs(), s.remote.fetchOptions()); err != nil {
		return nil, err
	}
	changes, oldLists, err := s.planChanges(ctx, rel)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		if c := &changes[i]; c.state == stUnknown && c.act == actPlace {
			c.state = stLacking // known only after reading the file
		}
	}
	g, lacking, lists := s.newStager(changes)
	if err := s.remote.repo.Manifests(s.remote.pages).Load(ctx, s.remote.loadIndex, lists, s.remote.fetchOptions()); err != nil {
		return nil, err
	}
	if err := g.listWants(ctx, lacking, nil); err != nil {
		return nil, err
	}
	if err := g.estimateFetch(ctx, oldLists); err != nil {
		return nil, err
	}
	places, missing, err := x.Locate(ctx, g.lackingIDs())
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, g.nameMissing(&repo.MissingError{Chunks: missing})
	}
	return &Foreseen{Index: x.Root().Sequence, Needed: s.report.res.BytesNeeded, Packs: packsOf(x, places)}, nil
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
