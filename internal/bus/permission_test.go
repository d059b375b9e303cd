package bus

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"nightferry/internal/wire"
)

// foreignSubjects are subjects that a client of domain alpha, site rome or token t-1 must be unable to publish or
// subscribe to. Publishing to wildcards is refused anyway.
var foreignSubjects = []string{
	"nf.up.alpha.paris.beat", "nf.down.alpha.paris.state",
	"nf.up.beta.rome.beat", "nf.down.beta.rome.state",
	"nf.up.enroll.t-2.enroll", "nf.down.enroll.t-2.grant",
	"_INBOX.abc", "_INBOX.alpha.rome.abc", "$SYS.REQ.USER.INFO", "$SYS.ACCOUNT.x.CONNECT", "$JS.API.INFO",
	"nf.up.alpha.rome", "nf.down.alpha.rome", "nf", "rome", "nf.other.alpha.rome.x",
}

var wildcards = []string{">", "*", "nf.>", "nf.up.>", "nf.down.>", "nf.down.alpha.>", "nf.down.*.rome.>", "nf.down.alpha.*.state",
	"nf.down.enroll.>", "_INBOX.>", "$SYS.>", "nf.up.alpha.>", "*.*.*.*.*"}

func TestPermissions(t *testing.T) {
	w := newWorld(t)
	clients := []struct {
		name    string
		own     wire.Address
		client  *site
		foreign []string
	}{
		{"site", wire.Address{Domain: "alpha", Site: "rome"}, w.site("alpha", "rome"),
			append([]string{"nf.up.enroll.t-1.enroll", "nf.down.enroll.t-1.grant"}, foreignSubjects...)},
		{"enrollment user", wire.Address{Domain: wire.EnrolDomain, Site: "t-1"}, w.dial(w.enrolOptions("t-1")),
			append([]string{"nf.up.alpha.rome.beat", "nf.down.alpha.rome.state"}, foreignSubjects...)},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			heard := w.core.hear(c.own.Up(">"))
			for _, subject := range append(c.foreign, c.own.Down("state")) {
				c.client.say(subject, "forged")
				refusal(t, w, c.client, "publish", subject)
			}
			for _, subject := range append(append([]string{c.own.Up("beat"), c.own.Up(">")}, wildcards...), c.foreign...) {
				c.client.hear(subject)
				refusal(t, w, c.client, "subscription", subject)
			}
			// Permitted subjects work and were not among the refusals.
			down := c.client.hear(c.own.AllDown())
			c.client.say(c.own.Up("beat"), "here")
			if got := receive(t, "the client's word", heard); got != c.own.Up("beat")+" here" {
				t.Errorf("the Core heard %q", got)
			}
			other := wire.Address{Domain: c.own.Domain, Site: "paris"}
			w.core.say(other.Down("state"), "for another")
			w.core.say(c.own.Down("state"), "for you")
			if got := receive(t, "the Core's word", down); got != c.own.Down("state")+" for you" {
				t.Errorf("the client heard %q", got)
			}
			c.client.calm()
		})
	}
}

// refusal expects the server to have refused a subject, and both the client and the server to have reported it.
func refusal(t *testing.T, w *world, c *site, act, subject string) {
	t.Helper()
	e := c.next(Denied)
	if text := strings.ToLower(e.Err.Error()); !strings.Contains(text, act) || !strings.Contains(e.Err.Error(), `"`+subject+`"`) {
		t.Errorf("%s %q: the client was told %v", act, subject, e.Err)
	}
	if line := receive(t, "a refusal in the log", w.refused); !strings.Contains(line, `"`+subject+`"`) {
		t.Errorf("%s %q: the log says %s", act, subject, line)
	}
}

// TestTheCoreOnlyComesFromWithin uses the Core's own identity from outside its process, and checks its permissions
// within.
func TestTheCoreOnlyComesFromWithin(t *testing.T) {
	w := newWorld(t)
	o := w.coreOptions()
	o.Server, o.URLs, o.Pins = nil, []string{"tls://" + w.server.Addr()}, []Pin{w.ca.Fingerprint()}
	unwelcome(t, w, o)
	for _, subject := range []string{"nf.down.>", "_INBOX.>", "$SYS.>"} {
		w.core.hear(subject)
		refusal(t, w, w.core, "subscription", subject)
	}
	w.core.say("nf.up.alpha.rome.beat", "forged")
	refusal(t, w, w.core, "publish", "nf.up.alpha.rome.beat")
}

// TestStolenDomainKey uses alpha's key to forge users with every claim that a JWT can make.
func TestStolenDomainKey(t *testing.T) {
	w := newWorld(t)
	kp := w.authority().domains["alpha"]
	forge := func(change func(*jwt.UserClaims)) ClientOptions {
		seed, public := w.identity()
		c := jwt.NewUserClaims(public)
		c.Name, c.IssuerAccount = "rome", w.seeds.Account
		c.SetScoped(true)
		change(c)
		token, err := c.Encode(kp)
		if err != nil {
			t.Fatal(err)
		}
		return w.options(seed, token)
	}
	victim := w.site("beta", "oslo")
	heard := victim.hear("nf.down.beta.oslo.>")
	for _, name := range []string{"beta.oslo", "oslo", "*", ">", "x.nf.down.beta.oslo", "{{name()}}", "a b", ""} {
		thief := w.dial(forge(func(c *jwt.UserClaims) { c.Name = name }))
		for _, subject := range []string{"nf.down.beta.oslo.>", "nf.up.beta.oslo.beat", ">", "nf.down.*.oslo.state"} {
			thief.hear(subject)
			refusal(t, w, thief, "subscription", subject)
		}
		for _, subject := range []string{"nf.down.beta.oslo.state", "nf.up.beta.oslo.beat"} {
			thief.say(subject, "forged")
			refusal(t, w, thief, "publish", subject)
		}
	}
	for name, change := range map[string]func(*jwt.UserClaims){
		"permissions of its own": func(c *jwt.UserClaims) { c.SetScoped(false); c.Sub.Allow.Add(">") },
		"no permissions at all":  func(c *jwt.UserClaims) { c.SetScoped(false) },
		"bearer token":           func(c *jwt.UserClaims) { c.SetScoped(false); c.BearerToken = true },
		"another account":        func(c *jwt.UserClaims) { _, c.IssuerAccount, _ = newKey(nkeys.PrefixByteAccount) },
		"expired":                func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Minute).Unix() },
	} {
		t.Run(name, func(t *testing.T) { unwelcome(t, w, forge(change)) })
	}
	t.Run("a key of nobody's", func(t *testing.T) {
		var err error
		kp, _, err = openKey("x", w.domainSeed(), nkeys.PrefixByteAccount)
		if err != nil {
			t.Fatal(err)
		}
		unwelcome(t, w, forge(func(*jwt.UserClaims) {}))
	})
	t.Run("another's JWT, own key", func(t *testing.T) {
		theirs, _ := w.siteOptions("beta", "oslo")
		theirs.Seed, _ = w.identity()
		unwelcome(t, w, theirs)
	})
	w.core.say("nf.down.beta.oslo.state", "true")
	if got := receive(t, "the Core's word", heard); got != "nf.down.beta.oslo.state true" {
		t.Errorf("the victim heard %q", got)
	}
	victim.calm()
}

// TestRefusedAreNamed checks that a refusal is reported with the content of the client's credential, over TLS and over
// WebSocket.
func TestRefusedAreNamed(t *testing.T) {
	w := newWorld(t)
	rome := w.site("alpha", "rome")
	if err := rome.Publish("nf.up.alpha.paris.beat", nil); err != nil {
		t.Fatal(err)
	}
	of := func(act, public string) {
		t.Helper()
		line, g := receive(t, "a refusal in the log", w.refused), receive(t, "whose it is", w.shown)
		if public == "" && g != nil || public != "" && (g == nil || g.Name != "rome" || g.Public != public || w.authority().RoleOf(g.Issuer) != DomainRole("alpha")) {
			t.Errorf("%s: %q shows %+v", act, line, g)
		}
	}
	of("a subject", rome.public)
	o, public := w.siteOptions("alpha", "rome")
	w.revoked = append(w.revoked, public)
	w.update()
	for _, url := range []string{"tls://" + w.server.Addr(), "wss://" + w.server.WebSocketAddr()} {
		o.URLs = []string{url}
		if _, err := w.try(o); err == nil {
			t.Fatal("it was let in")
		}
		of(url, public)
	}
	o.JWT = func() (string, error) { return "no credential", nil }
	if _, err := w.try(o); err == nil {
		t.Fatal("it was let in")
	}
	of("nothing", "")
	if role := w.authority().RoleOf(public); role != "" {
		t.Errorf("a key that signs nothing has the role %q", role)
	}
}

// unwelcome expects the server to refuse an identity and to log it.
func unwelcome(t *testing.T, w *world, o ClientOptions) {
	t.Helper()
	s, err := w.try(o)
	if err == nil {
		s.Close()
		t.Fatal("it was let in")
	}
	if eventKind(err, Failed) != Unwelcome {
		t.Errorf("refused for another reason: %v", err)
	}
	if line := receive(t, "a refusal in the log", w.refused); !strings.Contains(line, "authentication") {
		t.Errorf("the log says %s", line)
	}
}

// TestAccountKeySignsNobody checks that even the account's private half, of which no copy is kept, signs no users.
func TestAccountKeySignsNobody(t *testing.T) {
	w := newWorld(t)
	w.core.Close()
	w.server.Close()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	if w.seeds.Account, err = account.PublicKey(); err != nil {
		t.Fatal(err)
	}
	w.start("127.0.0.1:0", "")
	seed, public := w.identity()
	token, err := jwt.NewUserClaims(public).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	unwelcome(t, w, w.options(seed, token))
	if w.site("alpha", "rome").nc.HeadersSupported() {
		t.Error("headers are let through: they carry orders to the server")
	}
}

func TestAuthorityRefuses(t *testing.T) {
	w := &world{t: t}
	w.seeds, _ = NewSeeds()
	good := w.domainSeed()
	user, public := w.identity()
	for name, o := range map[string]AuthorityOptions{
		"a domain named enroll":   {Seeds: w.seeds, Domains: map[string][][]byte{"enroll": {good}}},
		"a domain with a star":    {Seeds: w.seeds, Domains: map[string][][]byte{"a.*": {good}}},
		"one key for two domains": {Seeds: w.seeds, Domains: map[string][][]byte{"a": {good}, "b": {good}}},
		"a user's seed":           {Seeds: w.seeds, Domains: map[string][][]byte{"a": {user}}},
		"rubbish":                 {Seeds: w.seeds, Domains: map[string][][]byte{"a": {[]byte("rubbish-with-a-secret")}}},
		"no seeds":                {Domains: map[string][][]byte{"a": {good}}},
		"revoked is no key":       {Seeds: w.seeds, Revoked: []string{"rome"}},
	} {
		if _, err := OpenAuthority(o); err == nil || strings.Contains(err.Error(), "rubbish-with") || strings.Contains(err.Error(), string(user)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, err := OpenAuthority(AuthorityOptions{Seeds: w.seeds, Domains: map[string][][]byte{"a": {good}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ domain, site, public string }{
		{"b", "rome", public}, {"a", "*", public}, {"a", "x.y", public}, {"a", "", public}, {"a", "rome", "UBAD"}, {"a", "rome", w.seeds.Account},
	} {
		if _, err := a.User(c.domain, c.site, c.public, time.Hour, time.Now()); err == nil {
			t.Errorf("signed %v", c)
		}
	}
}
