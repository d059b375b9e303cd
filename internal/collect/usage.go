package collect

import (
	"context"

	"nightferry/internal/repo"
)

// packUse is how the index and the live set use one pack.
type packUse struct {
	chunks  int64  // records that name it
	raw     uint64 // bytes of those chunks
	live    int64  // needed chunks that a reader would take from here
	liveRaw uint64
}

// sweepIndex walks the index in step with the live set and returns the use of each
// of x.Packs(). A chunk that is in several packs counts only where readers look
// first: in the newest segment whose pack is not condemned. sweepIndex calls missing
// with the prefix of each needed chunk that the index lacks.
func sweepIndex(ctx context.Context, segs *repo.Segments, x *repo.Index, l *live, missing func(uint64)) ([]packUse, error) {
	l.len()
	c := cursor{l: l, missing: missing}
	var use []packUse
	at := func(n uint32) *packUse {
		for int(n) >= len(use) {
			use = append(use, make([]packUse, len(x.Packs())-len(use))...)
		}
		return &use[n]
	}
	err := segs.Walk(ctx, x, func(places []repo.Place) error {
		for _, p := range places {
			u := at(p.Pack)
			u.chunks++
			u.raw += uint64(p.At.Size)
		}
		if c.hasPrefix(idPrefix(places[0].ID)) {
			p := servingPlace(x, places)
			u := at(p.Pack)
			u.live++
			u.liveRaw += uint64(p.At.Size)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.finishMissing()
	for len(use) < len(x.Packs()) {
		use = append(use, packUse{})
	}
	return use, nil
}

// servingPlace returns the place that readers use.
func servingPlace(x *repo.Index, places []repo.Place) repo.Place {
	for _, p := range places {
		if !x.Condemned(x.Packs()[p.Pack].Digest) {
			return p
		}
	}
	return places[0]
}

// usedShare estimates which part of a pack is needed, from 0 to 1. raw lacks the
// records that merging dropped because a newer pack holds their chunk too. The
// pack's own size is therefore a lower bound of its contents.
func (u *packUse) usedShare(size uint32) float64 {
	return float64(u.liveRaw) / float64(max(u.raw, uint64(size), 1))
}
