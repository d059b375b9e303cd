package core

import (
	"context"
	"sync/atomic"

	"nightferry/internal/fleet"
)

// Rights is what the check of a principal's rights needs of the Core.
type Rights struct {
	settings *atomic.Pointer[Settings]
	notices  *notices
}

// Configured returns the fleet as it is configured now. The caller must not change it.
func (r *Rights) Configured() *fleet.Fleet { return r.settings.Load().Fleet }

// Audit records what the actor of ctx did or tried.
func (r *Rights) Audit(ctx context.Context, what, object, detail string) error {
	return r.notices.Audit(ctx, what, object, detail)
}
