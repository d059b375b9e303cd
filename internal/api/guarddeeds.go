package api

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/rights"
	"nightferry/internal/vault"
)

type guardedIncidents struct {
	next  Incidents
	shown Fleet
	*guard
}

// mayHandle needs every site of the incident in the principal's scope. An incident that the principal may not see does
// not exist for it.
func (g guardedIncidents) mayHandle(ctx context.Context, what string, id int64) error {
	what += " " + strconv.FormatInt(id, 10)
	if rights.Of(ctx).Scope.All() || rights.Of(ctx).Role < rights.Operator {
		return g.may(ctx, rights.Operator, what, true)
	}
	list, err := g.shown.Incidents(ctx, false)
	if err != nil {
		return err
	}
	n := slices.IndexFunc(list, func(i query.Incident) bool { return i.ID == id })
	seen := func(m ledger.Member) bool { return g.sees(ctx, m.Domain, m.Site) }
	if n < 0 || !slices.ContainsFunc(list[n].Members, seen) {
		return ledger.ErrNotFound
	}
	return g.may(ctx, rights.Operator, what, !slices.ContainsFunc(list[n].Members, func(m ledger.Member) bool { return !seen(m) }))
}

func (g guardedIncidents) CloseIncident(ctx context.Context, id int64, reason string) (i query.Incident, err error) {
	if err := g.mayHandle(ctx, "incident close", id); err != nil {
		return i, err
	}
	return g.next.CloseIncident(ctx, id, reason)
}

func (g guardedIncidents) AckIncident(ctx context.Context, id int64, note string, silent time.Time) (i query.Incident, err error) {
	if err := g.mayHandle(ctx, "incident ack", id); err != nil {
		return i, err
	}
	return g.next.AckIncident(ctx, id, note, silent)
}

type guardedAlerts struct {
	next Alerts
	*guard
}

func (g guardedAlerts) Test(ctx context.Context, only string) ([]core.AlertTest, error) {
	if err := g.mayAll(ctx, rights.Admin, "alert test"); err != nil {
		return nil, err
	}
	return g.next.Test(ctx, only)
}

type guardedHalts struct {
	next Halts
	*guard
}

// List shows the orders that stop a site that the principal may see, with those sites.
func (g guardedHalts) List(ctx context.Context, all bool) ([]core.HaltView, error) {
	if err := g.may(ctx, rights.Viewer, "halts", true); err != nil {
		return nil, err
	}
	list, err := g.next.List(ctx, all)
	if rights.Of(ctx).Scope.All() {
		return list, err
	}
	out := []core.HaltView{}
	for _, v := range list {
		v.Sites = seenBy(ctx, g.guard, v.Sites, func(s *core.HaltSite) (string, string) { return s.Domain, s.Site })
		v.Confirmed = seenBy(ctx, g.guard, v.Confirmed, func(s *ledger.Stop) (string, string) { return s.Domain, s.Site })
		if len(v.Sites) > 0 || len(v.Confirmed) > 0 {
			out = append(out, v)
		}
	}
	return out, err
}

func (g guardedHalts) Halt(ctx context.Context, r core.HaltRequest) (*core.HaltChange, error) {
	if err := g.may(ctx, rights.Operator, strings.TrimSpace("halt "+r.Scope+" "+r.Value), g.coversHalt(ctx, r.Scope, r.Value)); err != nil {
		return nil, err
	}
	return g.next.Halt(ctx, r)
}

func (g guardedHalts) coversHalt(ctx context.Context, scope, value string) bool {
	return rights.Of(ctx).Scope.CoversHalt(g.rights.Configured(), scope, value)
}

// Resume checks the order that a prefix means. Orders have random identifiers, so that the order cannot become another
// one before it is lifted.
func (g guardedHalts) Resume(ctx context.Context, prefix, scope, value string) (*core.HaltChange, error) {
	p := rights.Of(ctx)
	if prefix == "" {
		if err := g.may(ctx, rights.Operator, strings.TrimSpace("resume "+scope+" "+value), g.coversHalt(ctx, scope, value)); err != nil {
			return nil, err
		}
		return g.next.Resume(ctx, "", scope, value)
	}
	if p.Role < rights.Operator || p.Scope.All() {
		if err := g.may(ctx, rights.Operator, "resume "+prefix, true); err != nil {
			return nil, err
		}
		return g.next.Resume(ctx, prefix, "", "")
	}
	list, err := g.next.List(ctx, false)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(v core.HaltView) bool { return !strings.HasPrefix(v.Order.String(), strings.ToLower(prefix)) })
	if len(list) == 0 {
		return nil, core.ErrNoOrder
	}
	if err := g.may(ctx, rights.Operator, "resume "+prefix, len(list) == 1 && g.coversHalt(ctx, list[0].Scope, list[0].Value)); err != nil {
		return nil, err
	}
	return g.next.Resume(ctx, list[0].Order.String(), "", "")
}

type guardedOrders struct {
	next Orders
	*guard
}

func (g guardedOrders) Sync(ctx context.Context, r core.SyncRequest) ([]core.Order, error) {
	if err := g.maySites(ctx, rights.Operator, "sync", r.Scope); err != nil {
		return nil, err
	}
	return g.next.Sync(ctx, r)
}

func (g guardedOrders) Verify(ctx context.Context, r core.VerifyRequest) ([]core.Order, error) {
	if err := g.maySites(ctx, rights.Operator, "verify", r.Scope); err != nil {
		return nil, err
	}
	return g.next.Verify(ctx, r)
}

func (g guardedOrders) Follow(ctx context.Context, q fleet.Scope, order func() ([]core.Order, error), ordered func([]core.Order) error, send func(core.Event) error) error {
	if err := g.maySites(ctx, rights.Operator, "follow", q); err != nil {
		return err
	}
	return g.next.Follow(ctx, q, order, ordered, send)
}

func (g guardedOrders) Limit(ctx context.Context, r core.LimitRequest) ([]core.Limited, error) {
	if err := g.maySites(ctx, rights.Operator, "limit", r.Scope); err != nil {
		return nil, err
	}
	return g.next.Limit(ctx, r)
}

// Withdraw needs no right: only the sender of the requests has them, and it had the right to send them.
func (g guardedOrders) Withdraw(ctx context.Context, orders []core.Order) (withdrawn, left []core.Order, err error) {
	return g.next.Withdraw(ctx, orders)
}

type guardedPublisher struct {
	next Publisher
	*guard
}

// Channels needs no right: it names what Publish then checks.
func (g guardedPublisher) Channels() []string { return g.next.Channels() }

func (g guardedPublisher) Publish(ctx context.Context, channel string, o core.PublishOptions) (*core.Published, error) {
	if err := g.mayAll(ctx, rights.Publisher, "publish "+channel); err != nil {
		return nil, err
	}
	return g.next.Publish(ctx, channel, o)
}

type guardedMembers struct {
	next Members
	*guard
}

func (g guardedMembers) Token(ctx context.Context, site string, life time.Duration) (*core.IssuedToken, error) {
	if err := g.maySite(ctx, "token", site); err != nil {
		return nil, err
	}
	return g.next.Token(ctx, site, life)
}

// maySite is maySites for an administrator and one site. Without a name it needs a scope without a limit.
func (g guardedMembers) maySite(ctx context.Context, what, site string) error {
	return g.maySites(ctx, rights.Admin, what, fleet.Scope{Site: site})
}

func (g guardedMembers) Wave(ctx context.Context, q fleet.Scope, n int, life time.Duration) ([]core.IssuedToken, error) {
	if err := g.maySites(ctx, rights.Admin, "token", q); err != nil {
		return nil, err
	}
	return g.next.Wave(ctx, q, n, life)
}

func (g guardedMembers) RevokeSite(ctx context.Context, name, reason string) error {
	if err := g.maySite(ctx, "revoke", name); err != nil {
		return err
	}
	return g.next.RevokeSite(ctx, name, reason)
}

func (g guardedMembers) Confirm(ctx context.Context, name, reason string) error {
	if err := g.maySite(ctx, "confirm", name); err != nil {
		return err
	}
	return g.next.Confirm(ctx, name, reason)
}

func (g guardedMembers) RevokeDomain(ctx context.Context, name, reason string) ([]string, error) {
	if err := g.maySites(ctx, rights.Admin, "revoke", fleet.Scope{Domain: name}); err != nil {
		return nil, err
	}
	return g.next.RevokeDomain(ctx, name, reason)
}

type guardedSecrets struct {
	next Secrets
	*guard
}

func (g guardedSecrets) ListSecrets(ctx context.Context) ([]vault.Info, error) {
	if err := g.mayAll(ctx, rights.Admin, "secrets"); err != nil {
		return nil, err
	}
	return g.next.ListSecrets(ctx)
}

func (g guardedSecrets) ChangeSecret(ctx context.Context, rotate bool, r SecretRequest) (SecretChange, error) {
	if err := g.mayAll(ctx, rights.Admin, "secret "+r.Name); err != nil {
		return SecretChange{}, err
	}
	return g.next.ChangeSecret(ctx, rotate, r)
}

type guardedTokens struct {
	next Tokens
	*guard
}

func (g guardedTokens) List(ctx context.Context) ([]ledger.APIToken, error) {
	if err := g.mayAll(ctx, rights.Admin, "api tokens"); err != nil {
		return nil, err
	}
	return g.next.List(ctx)
}

func (g guardedTokens) Issue(ctx context.Context, r apitokens.Request) (string, ledger.APIToken, error) {
	if err := g.mayAll(ctx, rights.Admin, "api token issue "+r.Name); err != nil {
		return "", ledger.APIToken{}, err
	}
	return g.next.Issue(ctx, r)
}

func (g guardedTokens) Revoke(ctx context.Context, id string) (ledger.APIToken, error) {
	if err := g.mayAll(ctx, rights.Admin, "api token revoke "+id); err != nil {
		return ledger.APIToken{}, err
	}
	return g.next.Revoke(ctx, id)
}
