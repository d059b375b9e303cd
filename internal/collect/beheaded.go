package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// errBeheaded means that a channel has lost its head. Its releases then look
// like leftovers of pushes that died before they moved the head, but must not
// be deleted as such.
var errBeheaded = errors.New("the channel's head is gone, its releases are not")

// checkHeadMissing returns an error that wraps errBeheaded if a channel without a head
// must have had one. Proof is a release with a parent, or a head of this
// channel in the local memory. The error is also returned if a release is
// damaged or signed by a revoked key, because the channel's past is then
// unknown. nil means that all releases may come from first pushes.
func checkHeadMissing(ctx context.Context, r *repo.Repo, s repo.Stored) error {
	var unclear error
	for _, sr := range s.Releases {
		rel, err := r.StoredRelease(ctx, s.Scope, sr.Number, trust.ReleaseDigest{})
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the list was made
		}
		if errors.Is(err, trust.ErrUntrusted) || isDamaged(err) {
			unclear = err
			continue
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
	if unclear != nil {
		return fmt.Errorf("channel %s: %w, as far as can be told: %w: push to it again, or delete %s by hand if the channel is of no use", s.Scope, errBeheaded, unclear, path.Join(repo.ChannelsPrefix, s.Scope))
	}
	return nil
}
