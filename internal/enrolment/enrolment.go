// Package enrolment decides which machine a site's identity belongs to. It makes tokens, enrolls sites, renews and
// revokes their identities, and finds two machines that use one identity.
//
// The Service owns the enrollments under way and the processes that use each identity. The identities in force are
// kept by Sites, and recorded by Identities.
package enrolment

import (
	"context"
	"sync"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Tokens keeps enrollment tokens. *ledger.Sites is one.
type Tokens interface {
	AddToken(ctx context.Context, t ledger.Token, hash [32]byte) (ledger.Token, error)
	TakeToken(ctx context.Context, id string, hash [32]byte, public string) (ledger.Token, error)
	EndTokens(ctx context.Context, domain, site string) (unused int, err error)
	EndUsedTokens(ctx context.Context, public string) (int, error)
}

// Identities records the identities of sites. *ledger.Sites is one.
type Identities interface {
	Enrol(ctx context.Context, id ledger.Identity) (old []ledger.Identity, err error)
	Renew(ctx context.Context, public string, jwtExpires time.Time, version string) error
	Revoke(ctx context.Context, domain, site, why string) (ledger.Identity, error)
	Contest(ctx context.Context, domain, site, text string) (ledger.Identity, error)
	Settle(ctx context.Context, domain, site string) (ledger.Identity, error)
}

// Processes records the processes that use the identities. *ledger.Sites is one.
type Processes interface {
	NoteProcess(ctx context.Context, public string, p ledger.Process) error
}

// Sites holds the identities in force, and the last contact of each site.
type Sites interface {
	// Enrolled calls fn for each site with an identity.
	Enrolled(fn func(a wire.Address, s Site))
	Enrolment(a wire.Address) Site
	// Replace makes id the identity of a site that another server serves from now on, or none (nil). It drops what
	// was heard of the former server, also its confirmations of halt orders.
	Replace(ctx context.Context, a wire.Address, id *ledger.Identity, ended time.Time) error
	// Update replaces the identity's record, if id is still the identity in force.
	Update(a wire.Address, id *ledger.Identity)
	// Doubt drops the site's confirmations of halt orders, because another machine may still move.
	Doubt(ctx context.Context, a wire.Address)
}

// Site is what Sites knows of a site.
type Site struct {
	Identity  *ledger.Identity // nil: none
	Connected bool             // heard lately
	Refused   bool             // the bus refuses the agent that has the identity
	Seen      time.Time        // last message
	Version   string           // of the agent, as its last hello had it; empty: none was heard
}

// Access decides who may use the bus.
type Access interface {
	// Sign calls fn with the authority in force. The authority changes only after fn has returned.
	Sign(fn func(*bus.Authority) error) error
	// Enforce applies ended tokens and identities. It disconnects their users before it returns.
	Enforce(ctx context.Context) error
	// EndDomain removes a domain's signing keys, and disconnects its users. It returns the keys.
	EndDomain(ctx context.Context, domain string) (keys []string, err error)
	// Refresh gives domains without a signing key a new one.
	Refresh(ctx context.Context) error
	// Rotating reports whether credentials of a domain's former signing keys are still accepted.
	Rotating(domain string) bool
}

// Bus is the message bus, as sites reach it.
type Bus interface {
	URLs() []string
	Pin() bus.Pin
	// KeepNewest closes all connections of a user but the newest one, if the Core can do that.
	KeepNewest(public string) error
	// NotCut notifies the operators, if the Core cannot disconnect the user of an identity, or the users of a
	// domain's signing key.
	NotCut(ctx context.Context, a wire.Address, public string) error
	DomainNotCut(ctx context.Context, domain, key string) error
}

// Replies answers messages.
type Replies interface {
	Send(a wire.Address, verb string, v any)
	Refuse(ctx context.Context, from wire.Address, verb, code, why string, kind kinds.Kind)
	RefuseError(ctx context.Context, from wire.Address, verb string, err error)
}

// Notices reports what happens.
type Notices interface {
	Audit(ctx context.Context, what, object, detail string) error // by the actor of ctx
	AuditToken(ctx context.Context, token, what, object, detail string) error
	LedgerFailed(err error)
	ReportFailure(what string, err error)
	ReportSuccess(what string)
}

// Incidents opens and ends incidents. *incident.Service is one.
type Incidents interface {
	Raise(kind kinds.Kind, what string, at wire.Address, text string)
	Resolve(kind kinds.Kind, what string, at wire.Address)
}

// Repository is the repository that sites get, and how they reach it.
type Repository struct {
	ID    trust.RepoID
	Root  trust.Public
	Key   []byte // nil: plain
	Store string // scheme://host[:port] of presigned URLs
}

// Options are the parts that a Service uses. All fields are required.
type Options struct {
	Tokens     Tokens
	Identities Identities
	Processes  Processes
	Sites      Sites
	Access     Access
	Bus        Bus
	Replies    Replies
	Notices    Notices
	Incidents  Incidents

	Fleet      func() *fleet.Fleet
	Repository func() Repository
	Now        func() time.Time
	Calendar   func(time.Time) time.Time // the time of records, which may be rehearsed
	Actor      func(context.Context) string
	Clip       func(string) string                       // bounds a text that a site sent
	Ready      <-chan struct{}                           // closed when the bus's addresses are known
	Prove      func(ctx context.Context, a wire.Address) // asks a site for a proof of what it holds
	// Joined and Ended are called after a site was enrolled, and after its identity was revoked.
	Joined func(a wire.Address)
	Ended  func(a wire.Address, why string)
}

// Service enrolls sites. It is safe for concurrent use.
type Service struct {
	o Options

	changing sync.Mutex // one enrollment or revocation at a time

	mu         sync.Mutex
	challenges map[string]challenge // that wait for their answer, by token
	machines   map[wire.Address]*machines
}

// CredentialLife is the life of a site's credential. Agents renew it when a third is left.
const CredentialLife = 90 * 24 * time.Hour

// New returns a Service without enrollments under way.
func New(o Options) *Service {
	return &Service{o: o, challenges: map[string]challenge{}, machines: map[wire.Address]*machines{}}
}

// enrolledAs returns the addresses at which a site of that name has an identity: its configured address, or one in the
// domain from which it was moved.
func (s *Service) enrolledAs(name string) (found []wire.Address) {
	s.o.Sites.Enrolled(func(a wire.Address, _ Site) {
		if a.Site == name {
			found = append(found, a)
		}
	})
	return found
}

// replace makes id the identity of a site, or none (nil), and forgets the processes of the former one.
func (s *Service) replace(ctx context.Context, a wire.Address, id *ledger.Identity, ended time.Time) error {
	s.mu.Lock()
	delete(s.machines, a)
	s.mu.Unlock()
	return s.o.Sites.Replace(ctx, a, id, ended)
}
