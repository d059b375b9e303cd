package collect

import (
	"context"

	"nightferry/internal/repo"
)

// packUse is what the index says of one pack.
type packUse struct {
	chunks  int64  // records that name it
	raw     uint64 // bytes of those chunks
	live    int64  // chunks that are needed and that a reader would take from here
	liveRaw uint64
}

// sweep walks the index beside the live set and tells, for each of x.Packs(),
// what is needed of it. A chunk that is in several packs counts only where
// readers look first: the newest segment whose pack is not condemned. missing
// is told of needed chunks that the index lacks, by their prefixes.
func sweep(ctx context.Context, segs *repo.Segments, x *repo.Index, l *live, missing func(uint64)) ([]packUse, error) {
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
		if c.has(prefix(places[0].ID)) {
			p := serving(x, places)
			u := at(p.Pack)
			u.live++
			u.liveRaw += uint64(p.At.Size)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.finish()
	for len(use) < len(x.Packs()) {
		use = append(use, packUse{})
	}
	return use, nil
}

// serving returns the place that readers take.
func serving(x *repo.Index, places []repo.Place) repo.Place {
	for _, p := range places {
		if !x.Condemned(x.Packs()[p.Pack].Digest) {
			return p
		}
	}
	return places[0]
}

// share estimates which part of a pack is needed, from 0 to 1. Records that
// merging dropped, because a newer pack holds their chunk too, are missing in
// raw: the pack's own size bounds what it held from below.
func (u *packUse) share(size uint32) float64 {
	return float64(u.liveRaw) / float64(max(u.raw, uint64(size), 1))
}
