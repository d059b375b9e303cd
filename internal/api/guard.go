package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/rights"
)

// Guarded returns a backend that does for the principal of a context (rights.With) only what its role and its scope
// allow. A context without a principal may do nothing. Each refusal is audited.
func Guarded(b Backend) Backend {
	return newGuard(b).backend(b)
}

func newGuard(b Backend) *guard {
	return &guard{rights: b.Rights, now: b.Now, last: map[refusal]time.Time{}}
}

func (g *guard) backend(b Backend) Backend {
	return Backend{
		Fleet: guardedFleet{b.Fleet, g}, Records: guardedRecords{b.Records, g}, LogFiles: guardedLogFiles{b.LogFiles, g}, Forecast: guardedForecast{b.Forecast, g},
		Incidents: guardedIncidents{b.Incidents, b.Fleet, g}, Alerts: guardedAlerts{b.Alerts, g}, Halts: guardedHalts{b.Halts, g},
		Orders: guardedOrders{b.Orders, g}, Publisher: guardedPublisher{b.Publisher, g}, Jobs: guardedJobs{b.Jobs, g}, Members: guardedMembers{b.Members, g},
		Secrets: guardedSecrets{b.Secrets, g}, Process: guardedProcess{b.Process, g}, Events: guardedEvents{b.Events, g}, Tokens: guardedTokens{b.Tokens, g}, Console: guardedConsole{b.Console, g}, Rights: b.Rights, Now: b.Now, Explain: b.Explain,
	}
}

// Rights are the Core's methods that a guarded backend needs.
type Rights interface {
	// Configured returns the fleet as it is configured now.
	Configured() *fleet.Fleet
	// Audit records an act, or a refused one, of the principal of ctx.
	Audit(ctx context.Context, what, object, detail string) error
}

type guard struct {
	rights Rights
	now    func() time.Time
	mu     sync.Mutex
	last   map[refusal]time.Time // of the last audit entry
}

type refusal struct{ who, what string }

const (
	// auditAgain is how often the same refusal is audited again, so that a principal that repeats it cannot fill
	// the ledger.
	auditAgain  = time.Minute
	maxRefusals = 1000
	maxRefused  = 256 // bytes of a deed in the audit
)

// may returns nil if the principal has the role, and covered is true.
func (g *guard) may(ctx context.Context, need rights.Role, what string, covered bool) error {
	p := rights.Of(ctx)
	if p.Role >= need && covered {
		return nil
	}
	return g.refuse(ctx, &rights.DeniedError{Who: p, What: what, Need: need})
}

// mayAll is may for what concerns all sites.
func (g *guard) mayAll(ctx context.Context, need rights.Role, what string) error {
	p := rights.Of(ctx)
	if p.Role >= need && p.Scope.All() {
		return nil
	}
	return g.refuse(ctx, &rights.DeniedError{Who: p, What: what, Need: need, All: true})
}

// maySites is may for what concerns the sites of a scope.
func (g *guard) maySites(ctx context.Context, need rights.Role, what string, q fleet.Scope) error {
	return g.may(ctx, need, what+" "+q.String(), rights.Of(ctx).Scope.Covers(g.rights.Configured(), q))
}

// narrow limits a selection to the principal's scope.
func (g *guard) narrow(ctx context.Context, what string, q fleet.Scope) (fleet.Scope, error) {
	return g.narrowAs(ctx, rights.Viewer, what, q)
}

// narrowAs is narrow for what needs another role.
func (g *guard) narrowAs(ctx context.Context, need rights.Role, what string, q fleet.Scope) (fleet.Scope, error) {
	n, ok := rights.Of(ctx).Scope.Narrow(q)
	return n, g.may(ctx, need, what+" "+q.String(), ok)
}

// sees reports whether the principal may see a site. What is of no site, it may see only with a scope without a limit.
func (g *guard) sees(ctx context.Context, domain, site string) bool {
	s := rights.Of(ctx).Scope
	return s.All() || domain != "" && s.CoversSite(g.rights.Configured(), domain, site)
}

// refuse audits a refusal and returns it.
func (g *guard) refuse(ctx context.Context, e *rights.DeniedError) error {
	if len(e.What) > maxRefused {
		e.What = strings.ToValidUTF8(e.What[:maxRefused], "") + "…"
	}
	key, now := refusal{e.Who.Name, e.What}, g.now()
	g.mu.Lock()
	fresh := now.Sub(g.last[key]) >= auditAgain || now.Before(g.last[key])
	if fresh {
		if len(g.last) >= maxRefusals {
			clear(g.last)
		}
		g.last[key] = now
	}
	g.mu.Unlock()
	if fresh {
		return errors.Join(e, g.rights.Audit(ctx, "refused", e.What, e.Error()))
	}
	return e
}

// hidden replaces an error that suggests names from outside of the principal's scope.
func hidden(ctx context.Context, err error) error {
	var unknown *fleet.UnknownError
	if errors.As(err, &unknown) && !rights.Of(ctx).Scope.All() {
		return &fleet.UnknownError{What: unknown.What, Name: unknown.Name, Hint: "it must be one of " + rights.Of(ctx).Scope.String()}
	}
	return err
}

// seenBy returns the items of sites that the principal may see.
func seenBy[T any](ctx context.Context, g *guard, items []T, of func(*T) (domain, site string)) []T {
	var out []T // of its own: a backend may keep its list
	for i := range items {
		if domain, site := of(&items[i]); g.sees(ctx, domain, site) {
			out = append(out, items[i])
		}
	}
	return out
}
