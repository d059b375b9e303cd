package core_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/query"
)

// TestUnknownSigningKey: a Core whose vault is older than the credential of a site names the site, does not blame its
// agent, and gives it a token with the others that have to join.
func TestUnknownSigningKey(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	osaka := w.join("osaka")
	osaka.hello()
	osaka.client.Close()
	w.until("osaka to be away", func() bool { return !w.seen("osaka") })
	wave := func() (names []string) {
		t.Helper()
		list, err := w.core.Enrolment.Wave(t.Context(), fleet.Scope{}, 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			names = append(names, x.Site)
		}
		return names
	}
	if names := wave(); slices.Contains(names, "osaka") {
		t.Errorf("a site that is only away gets a token: %v", names)
	}
	kept := func(name string) []byte {
		s, _, err := w.core.Vault().Get(t.Context(), name, "test")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSpace(s.Reveal())
	}
	seed, err := bus.NewDomainSeed()
	if err != nil {
		t.Fatal(err)
	}
	later, err := bus.OpenAuthority(bus.AuthorityOptions{Domains: map[string][][]byte{"apac": {seed}},
		Seeds: bus.Seeds{Account: string(kept("bus/account")), Operator: kept("bus/operator"), Enrol: kept("bus/enroll"), Core: kept("bus/core")}})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := bus.ReadGrant(osaka.grant.JWT)
	if err != nil {
		t.Fatal(err)
	}
	token, err := later.User("apac", "osaka", grant.Public, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := osaka.connect(osaka.at, token, osaka.seed); err == nil {
		t.Fatal("a credential of an unknown key is accepted")
	}
	text := w.untilIncident(string(kinds.Denied))
	if !strings.Contains(text, "not in force here") {
		t.Error(text)
	}
	w.mustConcern(kinds.Denied, "apac", "osaka")
	list, err := w.core.Query.Why(t.Context(), fleet.Scope{Site: "osaka"})
	if err != nil || !slices.ContainsFunc(list, func(r query.Reason) bool { return r.What == "refused" }) || slices.ContainsFunc(list, func(r query.Reason) bool { return r.What == "no message" }) {
		t.Errorf("%+v, %v", list, err)
	}
	if names := wave(); !slices.Contains(names, "osaka") {
		t.Errorf("a refused site gets no token: %v", names)
	}

	// Anyone can name a site in a credential.
	foreign, public, err := bus.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if token, err = later.User("apac", "tokyo", public, time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	stranger := &wireSite{w: w, pin: osaka.pin, token: osaka.token, lost: make(chan time.Time, 8)}
	_ = stranger.connect(osaka.at, token, foreign)
	w.until("the stranger's incident", func() bool {
		return slices.ContainsFunc(w.texts(string(kinds.Denied)), func(s string) bool { return strings.Contains(s, `"tokyo"`) })
	})
	if core.Strangers("b", "a", "b") != `"a", "b"` {
		t.Error(core.Strangers("b", "a", "b"))
	}
}
