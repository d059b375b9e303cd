package query

import (
	"context"
	"slices"

	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

// lostTargets returns the runs that found no target, emptied or not allowed, and that no later run refutes. A site's
// earlier attestation proves nothing about such a target. They count even if an operator has closed the incident.
func (v *Service) lostTargets(ctx context.Context, f ledger.Filter) (map[Row]ledger.Finding, error) {
	// A run that ended in one of the other states has found the target in place. A failed one may not have got so far.
	list, err := v.o.Proofs.Findings(ctx, f, append(runs.NoTarget(), runs.Incomplete, runs.Different)...)
	list = slices.DeleteFunc(list, func(x ledger.Finding) bool { return !slices.Contains(runs.NoTarget(), x.State) })
	return findingsBySite(list), err
}
