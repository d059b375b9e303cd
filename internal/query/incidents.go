package query

import (
	"context"
	"math"
	"slices"

	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

// FailingFiles lists the files of a scope that failed, were locked or were
// repaired, the newest report first, at most limit of them.
func (v *Service) FailingFiles(ctx context.Context, scope fleet.Scope, limit int) ([]ledger.Exception, error) {
	sites, err := v.o.World().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	most := limit
	if scope.Region != "" {
		most = math.MaxInt32 // the ledger knows no regions
	}
	list, err := v.o.Records.Exceptions(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel, Limit: most})
	if scope.Region != "" {
		list = slices.DeleteFunc(list, func(e ledger.Exception) bool {
			return !slices.ContainsFunc(sites, func(s fleet.Site) bool { return s.Name == e.Site && s.Domain == e.Domain })
		})
	}
	return list[:min(len(list), limit)], err
}

// Deeds lists audit entries.
func (v *Service) Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error) {
	return v.o.Records.Deeds(ctx, f)
}

// Incident is a problem with what to do about it.
type Incident struct {
	ledger.Incident
	Remedy string `json:"remedy"`
}

// WithRemedy adds the remedy of an incident's kind.
func WithRemedy(i ledger.Incident) Incident {
	return Incident{i, kinds.Remedy(kinds.Kind(i.Kind), i.Text)}
}

// Incidents lists the open incidents, or all, the newest first. What a full
// ledger could not take is among them.
func (v *Service) Incidents(ctx context.Context, all bool) ([]Incident, error) {
	list, err := v.o.Incidents.List(ctx, all)
	out := make([]Incident, 0, len(list))
	for _, i := range list {
		out = append(out, WithRemedy(i))
	}
	return out, err
}
