package bus

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"nightferry/internal/wire"
)

const (
	// maxSubs bounds a site's subscriptions; it needs one.
	maxSubs = 8
	nobody  = 0
)

// Seeds are the secrets of an Authority, except those of the domains, in NATS' text form. They are kept in the vault.
type Seeds struct {
	Account  string // public; part of every JWT, so it never changes. Its private half is discarded
	Operator []byte // signs the account. A new one needs only a restart of the server
	Enrol    []byte // signs enrollment users. A new one invalidates outstanding tokens
	Core     []byte // signs the Core's own user
}

// NewSeeds generates random seeds.
func NewSeeds() (Seeds, error) {
	var s Seeds
	var errs [4]error
	// The account's private half could sign users with any permissions; signing keys sign only what their scope allows.
	// The private half is therefore discarded here.
	_, s.Account, errs[0] = newKey(nkeys.PrefixByteAccount)
	s.Operator, _, errs[1] = newKey(nkeys.PrefixByteOperator)
	s.Enrol, _, errs[2] = newKey(nkeys.PrefixByteAccount)
	s.Core, _, errs[3] = newKey(nkeys.PrefixByteAccount)
	return s, errors.Join(errs[:]...)
}

// NewDomainSeed generates a domain's signing key, which is the secret half of the domain's credential.
func NewDomainSeed() ([]byte, error) {
	seed, _, err := newKey(nkeys.PrefixByteAccount)
	return seed, err
}

// AuthorityOptions determine who may connect and with which permissions.
type AuthorityOptions struct {
	Seeds Seeds
	// Domains maps a domain's name to its signing keys. The first one signs. Users of the other keys stay
	// connected until their key is removed. A domain that is missing here has no users.
	Domains map[string][][]byte
	// Revoked are public keys of users. All their JWTs are void, whatever their issue time: clocks may be wrong. After
	// the longest life of a JWT has passed, an entry may be removed.
	Revoked []string
}

// Authority signs users and defines their permissions. It is immutable: to change it, open another and pass
// it to Server.Update. It is safe for concurrent use.
type Authority struct {
	account  string
	operator nkeys.KeyPair
	enrol    nkeys.KeyPair
	core     nkeys.KeyPair
	domains  map[string]nkeys.KeyPair // one signing key for each domain
	signers  map[string]nkeys.KeyPair // all of them, by public key
	claims   *jwt.AccountClaims
}

// OpenAuthority parses the seeds. Its errors never contain one.
func OpenAuthority(o AuthorityOptions) (*Authority, error) {
	if !nkeys.IsValidPublicAccountKey(o.Seeds.Account) {
		return nil, fmt.Errorf("open the authority: account %q is not an account's public key", clipText(o.Seeds.Account))
	}
	a := &Authority{account: o.Seeds.Account, domains: map[string]nkeys.KeyPair{}, signers: map[string]nkeys.KeyPair{}, claims: accountClaims(o.Seeds.Account)}
	var err error
	if a.operator, _, err = openKey("operator", o.Seeds.Operator, nkeys.PrefixByteOperator); err != nil {
		return nil, err
	}
	if a.enrol, err = a.scopedKey(EnrolRole, o.Seeds.Enrol, siteScope(wire.EnrolDomain)); err != nil {
		return nil, err
	}
	if a.core, err = a.scopedKey("core", o.Seeds.Core, coreScope()); err != nil {
		return nil, err
	}
	for _, domain := range slices.Sorted(maps.Keys(o.Domains)) {
		if err := checkDomain(domain); err != nil {
			return nil, err
		}
		for i, seed := range o.Domains[domain] {
			kp, err := a.scopedKey(DomainRole(domain), seed, siteScope(domain))
			if err != nil {
				return nil, err
			}
			if i == 0 {
				a.domains[domain] = kp
			}
		}
	}
	for _, public := range o.Revoked {
		if _, err := Ed25519Public(public); err != nil {
			return nil, fmt.Errorf("open the authority: revoked: %w", err)
		}
		a.claims.RevokeAt(public, time.Unix(math.MaxInt64, 0))
	}
	return a, nil
}

// RoleOf returns the role of a signing key: a DomainRole, or EnrolRole. It is empty if the key is
// not in force.
func (a *Authority) RoleOf(public string) string {
	if s, ok := a.claims.SigningKeys[public].(*jwt.UserScope); ok {
		return s.Role
	}
	return ""
}

// User signs the JWT of a site's key. The life counts from now; the issue time in the JWT comes
// from the machine's clock.
func (a *Authority) User(domain, site, public string, life time.Duration, now time.Time) (string, error) {
	if err := checkDomain(domain); err != nil {
		return "", err
	}
	kp, ok := a.domains[domain]
	if !ok {
		return "", fmt.Errorf("sign a JWT for site %q: domain %q has no signing key", site, domain)
	}
	return a.signUser(kp, site, public, life, now)
}

// Enrol signs the JWT of a token's one-time user. The token's id must be a valid name.
func (a *Authority) Enrol(tokenID, public string, life time.Duration, now time.Time) (string, error) {
	return a.signUser(a.enrol, tokenID, public, life, now)
}

// Core signs the JWT of the Core's own user. It allows only connections within the process.
func (a *Authority) Core(public string, life time.Duration, now time.Time) (string, error) {
	return a.signUser(a.core, "core", public, life, now)
}

func (a *Authority) signUser(kp nkeys.KeyPair, name, public string, life time.Duration, now time.Time) (string, error) {
	// A name with a dot or a star would add tokens to the subjects built from the template.
	if !wire.ValidName(name) {
		return "", fmt.Errorf("sign a JWT: name %q: use 1 to 63 lower-case letters, digits and hyphens, not a hyphen first", clipText(name))
	}
	if _, err := Ed25519Public(public); err != nil {
		return "", fmt.Errorf("sign a JWT for %q: %w", name, err)
	}
	if life <= 0 {
		return "", fmt.Errorf("sign a JWT for %q: a life of %v", name, life)
	}
	c := jwt.NewUserClaims(public)
	c.Name = name
	c.IssuerAccount = a.account
	c.Expires = now.Add(life).Unix()
	c.SetScoped(true) // no permissions of its own: the key's scope defines them
	token, err := c.Encode(kp)
	if err != nil {
		return "", fmt.Errorf("sign a JWT for %q: %w", name, err)
	}
	return token, nil
}

// accountJWT returns the account in the server's format.
func (a *Authority) accountJWT() (string, error) {
	token, err := a.claims.Encode(a.operator)
	if err != nil {
		return "", fmt.Errorf("sign the account: %w", err)
	}
	return token, nil
}

// operatorClaims trusts only the operator's signing key and makes the server refuse users signed by the account's own
// key. The operator's identity signs nothing, so its private half is discarded.
func (a *Authority) operatorClaims() (*jwt.OperatorClaims, error) {
	_, identity, err := newKey(nkeys.PrefixByteOperator)
	if err != nil {
		return nil, err
	}
	public, err := a.operator.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read the operator's key: %w", err)
	}
	c := jwt.NewOperatorClaims(identity)
	c.Name = "nightferry"
	c.SigningKeys.Add(public)
	c.StrictSigningKeyUsage = true
	return c, nil
}

func (a *Authority) scopedKey(what string, seed []byte, s *jwt.UserScope) (nkeys.KeyPair, error) {
	kp, public, err := openKey(what, seed, nkeys.PrefixByteAccount)
	if err != nil {
		return nil, err
	}
	if _, taken := a.claims.SigningKeys[public]; taken {
		return nil, fmt.Errorf("open the authority: the key of %s is used twice: make another", what)
	}
	s.Key, s.Role, a.signers[public] = public, what, kp
	a.claims.SigningKeys.AddScopedSigner(s)
	return kp, nil
}

func openKey(what string, seed []byte, kind nkeys.PrefixByte) (nkeys.KeyPair, string, error) {
	prefix, _, err := nkeys.DecodeSeed(seed)
	if err != nil {
		return nil, "", fmt.Errorf("read the seed of %s: %w", what, err)
	}
	if prefix != kind {
		return nil, "", fmt.Errorf("read the seed of %s: it is the seed of another kind of key", what)
	}
	kp, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, "", fmt.Errorf("read the seed of %s: %w", what, err)
	}
	public, err := kp.PublicKey()
	if err != nil {
		return nil, "", fmt.Errorf("read the seed of %s: %w", what, err)
	}
	return kp, public, nil
}

func checkDomain(domain string) error {
	if !wire.ValidName(domain) || domain == wire.EnrolDomain {
		return fmt.Errorf("domain %q: use 1 to 63 lower-case letters, digits and hyphens, not a hyphen first, and not %q", clipText(domain), wire.EnrolDomain)
	}
	return nil
}

// accountClaims returns the only account. It has no imports, exports, leaf nodes, bearer tokens or
// JetStream.
func accountClaims(public string) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(public)
	c.Name = "FLEET"
	c.Limits.Imports, c.Limits.Exports, c.Limits.WildcardExports = nobody, nobody, false
	c.Limits.LeafNodeConn = nobody
	c.Limits.DisallowBearer = true
	c.Limits.Payload = MaxPayload
	return c
}

// siteScope names the literal domain, so a stolen domain key can sign users of that domain only, whatever their names.
// No user may use an inbox; everything that is not allowed is denied.
func siteScope(domain string) *jwt.UserScope {
	own := wire.Address{Domain: domain, Site: "{{name()}}"}
	s := userScope(own.Up(">"), own.AllDown(), jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket)
	s.Template.Subs = maxSubs
	return s
}

func coreScope() *jwt.UserScope {
	return userScope("nf.down.>", wire.AllUp, jwt.ConnectionTypeInProcess)
}

func userScope(pub, sub string, doors ...string) *jwt.UserScope {
	s := jwt.NewUserScope()
	s.Template.Pub.Allow.Add(pub)
	s.Template.Sub.Allow.Add(sub)
	s.Template.Payload = MaxPayload
	s.Template.AllowedConnectionTypes.Add(doors...)
	return s
}
