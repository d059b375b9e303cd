package config

import (
	"fmt"
	"net/url"
	"strings"

	"nightferry/internal/fleet"
	"nightferry/internal/rights"
)

// defaultClaim holds the app roles of Entra ID.
const defaultClaim = "roles"

func (b *builder) buildSignIn(c *Config) *SignIn {
	f := b.f.SignIn
	if f == nil {
		return nil
	}
	s := &SignIn{CAFile: b.buildFolder("signin.ca_file", f.CAFile, ""), Claim: defaultClaim}
	if c.Listen.Console.Address == "" {
		b.reportBad("signin", "people sign in to the console: set listen.console, too")
	}
	if f.Issuer == nil {
		b.reportBad("signin.issuer", "it is missing: want the provider's URL, such as https://login.microsoftonline.com/TENANT/v2.0")
	} else if u, err := url.Parse(*f.Issuer); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		b.reportBad("signin.issuer", "%s: want an https URL, such as https://login.microsoftonline.com/TENANT/v2.0", quoteShort(*f.Issuer))
	} else if strings.HasPrefix(u.Path, "/common/") || strings.HasPrefix(u.Path, "/organizations/") || strings.HasPrefix(u.Path, "/consumers/") {
		b.reportBad("signin.issuer", "%s: people of any organization could sign in: name your own tenant by its id", quoteShort(*f.Issuer))
	} else {
		s.Issuer = *f.Issuer
	}
	if f.ClientID == nil || *f.ClientID == "" {
		b.reportBad("signin.client_id", "it is missing: want the id of the application that you have registered at the provider")
	} else {
		s.ClientID = *f.ClientID
	}
	if f.Claim != nil {
		if s.Claim = *f.Claim; s.Claim == "" {
			b.reportBad("signin.claim", "it is empty: want roles, groups, or a path such as realm_access.roles")
		}
	}
	if len(f.Roles) == 0 {
		b.reportBad("signin.roles", "it is missing: without an entry, nobody could sign in")
	}
	seen := map[string]bool{}
	for i := range f.Roles {
		key := fmt.Sprintf("signin.roles[%d]", i)
		g := b.buildGrant(key, &f.Roles[i], c.Fleet)
		if seen[g.Value] && g.Value != "" {
			b.reportBad(key+".value", "%s stands here twice: the first entry counts, so remove one", quoteShort(g.Value))
		}
		seen[g.Value] = true
		s.Roles = append(s.Roles, g)
	}
	return s
}

func (b *builder) buildGrant(key string, f *grantFile, fl *fleet.Fleet) (g Grant) {
	if f.Value == nil || *f.Value == "" {
		b.reportBad(key+".value", "it is missing: want an app role, or the object id of a group")
	} else {
		g.Value = *f.Value
	}
	if f.Role == nil {
		b.reportBad(key+".role", "it is missing: want logs, viewer, operator, publisher or admin")
	} else {
		var err error
		if g.Role, err = rights.ParseRole(*f.Role); err != nil {
			b.reportBad(key+".role", "%v", err)
		}
	}
	if f.Domain != nil {
		if g.Domain = *f.Domain; fl.Domain(g.Domain) == nil {
			b.reportBad(key+".domain", "there is no such domain: %s", fleet.Suggest(g.Domain, sortedKeys(b.f.Domains)))
		}
	}
	if f.Region != nil {
		if g.Region = *f.Region; fl.Region(g.Region) == nil {
			b.reportBad(key+".region", "there is no such region: %s", fleet.Suggest(g.Region, sortedKeys(b.f.Regions)))
		}
	}
	return g
}
