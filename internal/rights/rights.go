// Package rights says who may do what: principals with a role, each over all sites, a domain or a region. It decides
// from values alone. The caller enforces the decision and audits a refusal.
package rights

import (
	"context"
	"fmt"

	"nightferry/internal/fleet"
	"nightferry/internal/halt"
)

// Role is what a principal may do. Each role includes the ones before it.
type Role uint8

// Roles. The zero role may do nothing.
const (
	Logs      Role = 1 + iota // reads log files
	Viewer                    // reads everything else, too
	Operator                  // halts, resumes, requests syncs and checks, limits rates, handles incidents
	Publisher                 // publishes
	Admin                     // admits and revokes sites, changes secrets and the configuration
)

var names = [...]string{"none", "logs", "viewer", "operator", "publisher", "admin"}

// Roles lists them, the weakest first.
func Roles() []Role { return []Role{Logs, Viewer, Operator, Publisher, Admin} }

func (r Role) String() string {
	if int(r) < len(names) {
		return names[r]
	}
	return names[0]
}

// ParseRole is the reverse of String.
func ParseRole(s string) (Role, error) {
	for _, r := range Roles() {
		if r.String() == s {
			return r, nil
		}
	}
	return 0, fmt.Errorf("role %q: want logs, viewer, operator, publisher or admin", s)
}

// Scope limits a principal to the sites of a domain, or of a region. The zero scope is all sites.
type Scope struct{ Domain, Region string }

// All reports whether the scope has no limit.
func (s Scope) All() bool { return s == Scope{} }

func (s Scope) String() string {
	switch {
	case s.Domain != "" && s.Region != "":
		return "domain " + s.Domain + " and region " + s.Region
	case s.Domain != "":
		return "domain " + s.Domain
	case s.Region != "":
		return "region " + s.Region
	}
	return "all"
}

// CoversSite reports whether a site of a domain is in the scope. A site that is no longer configured has no region.
func (s Scope) CoversSite(f *fleet.Fleet, domain, site string) bool {
	if s.Domain != "" && s.Domain != domain {
		return false
	}
	if s.Region == "" {
		return true
	}
	x := f.Site(site)
	return x != nil && x.Domain == domain && x.Region == s.Region
}

// Covers reports whether the scope covers every site that q can select, also sites that are configured later. A q that
// names a site selects that site alone.
func (s Scope) Covers(f *fleet.Fleet, q fleet.Scope) bool {
	if s.All() {
		return true
	}
	if q.Site != "" {
		x := f.Site(q.Site)
		return x != nil && s.CoversSite(f, x.Domain, x.Name)
	}
	return (s.Domain == "" || s.Domain == q.Domain) && (s.Region == "" || s.Region == q.Region)
}

// CoversHalt is Covers for the scope of a halt order. An order for all sites, or for a channel, needs a scope without
// a limit.
func (s Scope) CoversHalt(f *fleet.Fleet, scope, value string) bool {
	switch scope {
	case halt.Domain:
		return s.Covers(f, fleet.Scope{Domain: value})
	case halt.Region:
		return s.Covers(f, fleet.Scope{Region: value})
	case halt.Site:
		return s.Covers(f, fleet.Scope{Site: value})
	}
	return s.All()
}

// Narrow returns q limited to the scope. ok is false if q names something outside of it.
func (s Scope) Narrow(q fleet.Scope) (_ fleet.Scope, ok bool) {
	if s.Domain != "" && q.Domain != "" && s.Domain != q.Domain || s.Region != "" && q.Region != "" && s.Region != q.Region {
		return q, false
	}
	if s.Domain != "" {
		q.Domain = s.Domain
	}
	if s.Region != "" {
		q.Region = s.Region
	}
	return q, true
}

// Principal is who calls.
type Principal struct {
	Name  string // for the audit
	Role  Role
	Scope Scope
	Local bool // an account of the Core's machine, over the local socket and without a token
}

// DeniedError says that a principal may not do something. It names nothing that the principal may not see.
type DeniedError struct {
	Who  Principal
	What string // the deed, with its object
	Need Role
	All  bool // it needs a scope without a limit

	Local bool // it needs the local socket
}

func (e *DeniedError) Error() string {
	if e.Local {
		return fmt.Sprintf("%s: %s does not call over the local socket of the Core's machine", e.What, e.Who.Name)
	}
	if e.Who.Role < e.Need {
		return fmt.Sprintf("%s: %s has the role %s, and needs %s", e.What, e.Who.Name, e.Who.Role, e.Need)
	}
	if e.All {
		return fmt.Sprintf("%s: %s has rights over %s only, and needs them over all sites", e.What, e.Who.Name, e.Who.Scope)
	}
	return fmt.Sprintf("%s: %s has rights over %s only", e.What, e.Who.Name, e.Who.Scope)
}

// Remedy names who can help.
func (e *DeniedError) Remedy() string {
	if e.Local {
		return "run the command on the Core's machine, without NIGHTFERRY_CORE, NIGHTFERRY_TOKEN and NIGHTFERRY_TOKEN_FILE in the environment"
	}
	return "ask an administrator of the Core to do it, or for these rights"
}

type key struct{}

// With returns a context in which p calls.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, key{}, p)
}

// Of returns the principal that calls. Without one it is the zero principal, which may do nothing.
func Of(ctx context.Context) Principal {
	p, _ := ctx.Value(key{}).(Principal)
	return p
}
