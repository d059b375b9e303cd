package core

import (
	"context"
	"errors"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

// CompareWith makes m what the Core has measured.
func (c *Core) CompareWith(ctx context.Context, m ledger.Measurement) error {
	return errors.Join(c.ledger.Measurements.Set(ctx, m), c.measurer.compareAll(ctx, &m))
}

// IncidentOf tells as which kind of incident people hear of a trouble.
func IncidentOf(what string) kinds.Kind { return incidentOf(what) }

// LedgerFailed is what becomes of an error of the ledger.
func (c *Core) LedgerFailed(err error) { c.notices.LedgerFailed(err) }
