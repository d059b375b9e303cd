package rights

import (
	"testing"

	"nightferry/internal/fleet"
)

var world = &fleet.Fleet{Sites: []fleet.Site{
	{Name: "osaka", Domain: "alpha", Region: "ap"},
	{Name: "oslo", Domain: "beta", Region: "emea"},
	{Name: "rome", Domain: "alpha", Region: "emea"},
}}

// TestCovers checks each scope against each selection. What a selection could contain later counts, too.
func TestCovers(t *testing.T) {
	domain, region, both := Scope{Domain: "alpha"}, Scope{Region: "emea"}, Scope{Domain: "alpha", Region: "emea"}
	for _, c := range []struct {
		of   Scope
		q    fleet.Scope
		want bool
	}{
		{Scope{}, fleet.Scope{}, true},
		{Scope{}, fleet.Scope{Domain: "beta"}, true},
		{domain, fleet.Scope{}, false},
		{domain, fleet.Scope{Domain: "alpha"}, true},
		{domain, fleet.Scope{Domain: "alpha", Region: "ap"}, true},
		{domain, fleet.Scope{Domain: "beta"}, false},
		{domain, fleet.Scope{Region: "ap"}, false}, // today only alpha is there
		{domain, fleet.Scope{Channel: "package"}, false},
		{domain, fleet.Scope{Site: "osaka"}, true},
		{domain, fleet.Scope{Site: "oslo"}, false},
		{domain, fleet.Scope{Site: "unknown"}, false},
		{domain, fleet.Scope{Domain: "alpha", Site: "oslo"}, false},
		{region, fleet.Scope{Region: "emea"}, true},
		{region, fleet.Scope{Domain: "beta"}, false}, // today it is in emea alone
		{region, fleet.Scope{Site: "oslo"}, true},
		{region, fleet.Scope{Site: "osaka"}, false},
		{both, fleet.Scope{Domain: "alpha"}, false},
		{both, fleet.Scope{Domain: "alpha", Region: "emea"}, true},
		{both, fleet.Scope{Site: "rome"}, true},
		{both, fleet.Scope{Site: "oslo"}, false},
		{both, fleet.Scope{Site: "osaka"}, false},
	} {
		if got := c.of.Covers(world, c.q); got != c.want {
			t.Errorf("%s covers %+v: %v", c.of, c.q, got)
		}
	}
}

// TestCoversHalt checks that a limited principal can halt only what is its own.
func TestCoversHalt(t *testing.T) {
	for _, c := range []struct {
		of           Scope
		scope, value string
		want         bool
	}{
		{Scope{}, "all", "", true}, {Scope{}, "channel", "package", true}, {Scope{}, "site", "gone", true}, {Scope{}, "region", "emea", true},
		{Scope{Domain: "alpha"}, "all", "", false}, {Scope{Domain: "alpha"}, "channel", "package", false}, {Scope{Domain: "alpha"}, "region", "ap", false},
		{Scope{Domain: "alpha"}, "domain", "alpha", true}, {Scope{Domain: "alpha"}, "domain", "beta", false}, {Scope{Domain: "alpha"}, "site", "osaka", true},
		{Scope{Domain: "alpha"}, "site", "oslo", false}, {Scope{Domain: "alpha"}, "site", "gone", false}, {Scope{Domain: "alpha"}, "domain", "", false},
		{Scope{Region: "emea"}, "region", "emea", true}, {Scope{Region: "emea"}, "region", "ap", false}, {Scope{Region: "emea"}, "site", "oslo", true},
		{Scope{Region: "emea"}, "nonsense", "emea", false},
	} {
		if got := c.of.CoversHalt(world, c.scope, c.value); got != c.want {
			t.Errorf("%s covers a halt of %s %s: %v", c.of, c.scope, c.value, got)
		}
	}
}

// TestNarrow checks that a narrowed selection never leaves the scope.
func TestNarrow(t *testing.T) {
	for _, s := range []Scope{{}, {Domain: "alpha"}, {Region: "emea"}, {Domain: "alpha", Region: "emea"}} {
		for _, q := range []fleet.Scope{{}, {Domain: "alpha"}, {Domain: "beta"}, {Region: "ap"}, {Region: "emea"}, {Channel: "package"}} {
			n, ok := s.Narrow(q)
			if want := (s.Domain == "" || q.Domain == "" || q.Domain == s.Domain) && (s.Region == "" || q.Region == "" || q.Region == s.Region); ok != want {
				t.Errorf("%s narrows %+v: %v", s, q, ok)
			}
			if ok && !s.Covers(world, n) {
				t.Errorf("%s narrows %+v to %+v, which it does not cover", s, q, n)
			}
		}
	}
}
