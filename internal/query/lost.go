package query

import (
	"context"
	"strings"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

// siteTarget is the incident of a target that lost its release, or that its site does not allow.
const siteTarget = kinds.SiteSays + "-target"

// lostTargets knows which targets are absent, emptied or refused. A site's earlier attestation proves nothing about
// such a target.
type lostTargets struct {
	incidents Incidents
	runs      map[Row]ledger.Finding // the run that found it
}

// lostTargets reads the runs that ended because of their target and that no later attestation refutes. They count
// even if an operator has closed the incident.
func (v *Service) lostTargets(ctx context.Context, f ledger.Filter) (*lostTargets, error) {
	out := &lostTargets{v.o.Incidents, map[Row]ledger.Finding{}}
	for _, state := range []runs.State{runs.Refused, runs.Failed} {
		list, err := v.o.Proofs.Findings(ctx, state, f)
		if err != nil {
			return nil, err
		}
		for row, x := range findingsBySite(list) {
			if state == runs.Refused || strings.Contains(x.Cause, runs.TargetEmptied) {
				out.runs[row] = x
			}
		}
	}
	return out, nil
}

// cause returns why a target proves nothing. It is empty if the target is in place.
func (l *lostTargets) cause(key Row) string {
	if x, ok := l.runs[key]; ok {
		return x.Cause
	}
	if l.incidents.Has(siteTarget, key.Channel, key.Address) {
		return "the site reports that the target lost its release, or that it does not allow the target"
	}
	return ""
}
