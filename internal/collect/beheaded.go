package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/digest"
	"nightferry/internal/repo"
)

// errBeheaded says that a channel has lost its head. Its releases then look
// like those of pushes that died before they moved the head, but must not be
// deleted as such.
var errBeheaded = errors.New("the channel's head is gone, its releases are not")

// beheaded returns an error that wraps errBeheaded when a channel without a
// head must have had one: a release of it follows another, or this place has
// seen its head. nil says that its releases may be all of first pushes.
func beheaded(ctx context.Context, r *repo.Repo, s repo.Stored) error {
	for _, sr := range s.Releases {
		rel, err := r.StoredRelease(ctx, s.Scope, sr.Number, digest.Digest{})
		if err != nil && stored(err) {
			continue // it tells nothing
		}
		if err != nil {
			return err
		}
		// The list may be older than the head.
		_, err = r.Head(ctx, rel.Channel)
		switch {
		case errors.Is(err, repo.ErrOlder), errors.Is(err, fs.ErrNotExist) && !rel.Parent.IsZero():
			return fmt.Errorf("channel %q: %w: push again, which makes one", rel.Channel, errBeheaded)
		case errors.Is(err, fs.ErrNotExist):
		default:
			return err
		}
	}
	return nil
}
