package releases

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"nightferry/internal/digest"
	"nightferry/internal/manifest"
)

// deltas remembers how much content one release has beyond another.
type deltas struct {
	mu  sync.Mutex
	all map[[2]Key]int64
}

// maxDeltas bounds the pairs that are remembered.
const maxDeltas = 1024

// Delta counts the bytes that a site which holds the release from lacks of the
// release to, from the two manifests: before compression, and without files
// whose content from has under another name. known is false if from is gone.
func (r *Reader) Delta(ctx context.Context, from, to Key) (bytes int64, known bool, err error) {
	pair := [2]Key{from, to}
	r.deltas.mu.Lock()
	bytes, known = r.deltas.all[pair]
	r.deltas.mu.Unlock()
	if known {
		return bytes, true, nil
	}
	open := r.repo()
	_, old, err := r.EntriesOf(ctx, open, from)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil // gc has removed it
	}
	if err != nil {
		return 0, false, err
	}
	_, newer, err := r.EntriesOf(ctx, open, to)
	if err != nil {
		return 0, false, err
	}
	if bytes, err = lacking(old, newer); err != nil {
		return 0, false, err
	}
	r.deltas.mu.Lock()
	defer r.deltas.mu.Unlock()
	if r.deltas.all == nil || len(r.deltas.all) >= maxDeltas {
		r.deltas.all = map[[2]Key]int64{}
	}
	r.deltas.all[pair] = bytes
	return bytes, true, nil
}

// lacking sums the content of to that from has not. It holds one digest for
// each path that differs.
func lacking(from, to manifest.Next) (int64, error) {
	need := map[digest.Digest]int64{}
	var gone []digest.Digest
	err := manifest.Diff(from, to, func(ch manifest.Change) error {
		switch {
		case ch.Old != nil && ch.New != nil && ch.Old.SameContent(ch.New):
			return nil // its time or mode
		case ch.New != nil && ch.New.Kind == manifest.File && ch.New.Size > 0:
			n := ch.New.Size
			if ch.Old != nil {
				n = changed(ch.Old, ch.New)
			}
			if have, ok := need[ch.New.Digest]; !ok || n < have {
				need[ch.New.Digest] = n
			}
		}
		if ch.Old != nil && ch.Old.Kind == manifest.File {
			gone = append(gone, ch.Old.Digest)
		}
		return nil
	})
	for _, d := range gone {
		delete(need, d) // it was moved
	}
	sum := int64(0)
	for _, n := range need {
		sum += n
	}
	return sum, err
}

// changed counts the bytes of the parts of a file that its older version lacks:
// chunks, or for a large file the lists of them.
func changed(old, newer *manifest.Entry) int64 {
	has := map[digest.Digest]bool{}
	for _, r := range old.Refs() {
		has[r.ID] = true
	}
	for _, l := range old.Lists {
		has[l.ID] = true
	}
	n := int64(0)
	for _, r := range newer.Refs() {
		if !r.Hole() && !has[r.ID] {
			n += r.Size
		}
	}
	for _, l := range newer.Lists {
		if !has[l.ID] {
			n += l.Size
		}
	}
	return n
}
