package core

import (
	"context"
	"sync/atomic"

	"nightferry/internal/fleet"
)

// Rights are the Core's methods that the check of a principal's rights needs.
type Rights struct {
	settings *atomic.Pointer[Settings]
	notices  *notices
}

// Configured returns the fleet as it is configured now. The caller must not change it.
func (r *Rights) Configured() *fleet.Fleet { return r.settings.Load().Fleet }

// Audit records an act, or a refused one, of the actor of ctx.
func (r *Rights) Audit(ctx context.Context, what, object, detail string) error {
	return r.notices.Audit(ctx, what, object, detail)
}
