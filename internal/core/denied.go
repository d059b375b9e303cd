package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/kinds"
	"nightferry/internal/wire"
)

// busRefuses makes an incident of somebody who tried on the bus what is not
// his, and says who that is, as far as he has shown a credential.
func (l *busLink) busRefuses(ctx context.Context, text string, shown *bus.Grant) {
	at, who := l.whoShows(ctx, shown, strings.Contains(text, "Violation"))
	l.notices.incidents.Raise(kinds.Denied, "", at, who+" ("+text+")")
}

// whoShows tells whose credential that is, and why the bus may not take it. The
// address is a site's only where a key of the Core's own has signed it for that
// site, and else zero. With connected, it was taken, and a subject was not.
func (l *busLink) whoShows(ctx context.Context, g *bus.Grant, connected bool) (wire.Address, string) {
	if g == nil || !wire.ValidName(g.Name) {
		return wire.Address{}, "a client without a credential of this Core"
	}
	role := l.access.authority.Load().RoleOf(g.Issuer)
	domain, ok := strings.CutPrefix(role, bus.DomainRole(""))
	switch {
	case role == bus.EnrolRole:
		at, who := l.refusals.ofToken(ctx, g.Name)
		if at.Domain == wire.EnrolDomain {
			at = wire.Address{}
		}
		if !connected {
			who += ", which was used, revoked, or has expired"
		}
		return at, "the holder of " + who
	case !ok:
		return l.whoShowsUnknown(g)
	}
	at := wire.Address{Domain: domain, Site: g.Name}
	now := l.o.Now()
	why := "its credential is in order, but not shown by the one whom it was given to"
	elsewhere := l.fleet.enrolledAs(at.Site)
	x := l.fleet.siteOf(at)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case connected:
		why = "it tried a subject that is not its own"
	case x.identity == nil && len(elsewhere) > 0:
		why = fmt.Sprintf("the site has joined in domain %s, and this agent is still running: uninstall it, or enroll it again with a new token", elsewhere[0].Domain)
	case x.identity == nil && x.ended.IsZero():
		why = "the Core knows no identity of it"
	case x.identity == nil:
		why = "it was revoked on " + minuteOf(x.ended)
	case x.identity.Public != g.Public:
		why = fmt.Sprintf("another agent has joined in its place on %s, and this one is still running: uninstall it, or enroll it again with a new token", minuteOf(x.identity.Enrolled))
	case l.settings.Load().Fleet.Site(at.Site) == nil || l.settings.Load().Fleet.Site(at.Site).Domain != at.Domain:
		why = "the configuration has no such site in that domain: add it, or revoke the site"
	case !g.Expires.IsZero() && now.After(g.Expires):
		why = "its credential ended on " + minuteOf(g.Expires) + ": enroll it again with a new token"
		if g.Proven {
			x.refused, x.refusedAt = why, now
		}
	}
	return at, fmt.Sprintf("site %s: %s", at, why)
}

// whoShowsUnknown returns the owner of a credential that a signing key unknown to this Core has signed. Anyone can make one, so
// it is a site's only if the client has the key of that site's identity.
func (l *busLink) whoShowsUnknown(g *bus.Grant) (wire.Address, string) {
	var at wire.Address
	const why = "its agent shows a credential that was signed by a key which is not in force here: the key was removed, or the vault was restored from a backup. Restore the newest vault, or enroll the site again with a new token"
	if g.Proven {
		l.fleet.eachSite(func(a wire.Address, x *site) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.identity != nil && x.identity.Public == g.Public {
				at, x.refused, x.refusedAt = a, why, l.o.Now()
			}
		})
	}
	if at != (wire.Address{}) {
		return at, fmt.Sprintf("site %s: %s", at, why)
	}
	names := l.strangers.note(g.Name, l.o.Now())
	return at, fmt.Sprintf("clients whose credentials name %s: the signing keys of these credentials are not in force here; a site of this Core has to enroll again with a new token", names)
}

// strangers are the names in credentials that unknown keys have signed. Anyone can choose such a name.
type strangers struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

// maxStrangers bounds the names that are remembered, and strangerLife how long.
const (
	maxStrangers = 64
	strangerLife = time.Hour
)

// note adds a name and returns all, for people.
func (s *strangers) note(name string, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.seen, func(_ string, at time.Time) bool { return now.Sub(at) > strangerLife })
	if _, known := s.seen[name]; !known && len(s.seen) >= maxStrangers {
		return fmt.Sprintf("%q and at least %d others", name, len(s.seen))
	}
	if s.seen == nil {
		s.seen = map[string]time.Time{}
	}
	s.seen[name] = now
	var names []string
	for _, n := range slices.Sorted(maps.Keys(s.seen)) {
		names = append(names, strconv.Quote(n))
	}
	return strings.Join(names, ", ")
}

func minuteOf(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
