//go:build linux

package gates

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bus"
	"nightferry/internal/wire"
)

// Marks around the block of docs/threats.md that -update writes.
const (
	blockBegins = "<!-- permissions: go test ./internal/gates -run TestPermissionMatrix -update -->\n"
	blockEnds   = "<!-- end of permissions -->\n"
)

// table is one table of the permission matrix.
type table struct {
	title string
	roles []string
	rows  []row
	notes string
}

type row struct {
	what  string
	cells []string
}

func (x *table) add(what string, cells ...string) { x.rows = append(x.rows, row{what, cells}) }

func (x *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n| | %s |\n|%s\n", x.title, strings.Join(x.roles, " | "), strings.Repeat(" --- |", len(x.roles)+1))
	for _, r := range x.rows {
		fmt.Fprintf(&b, "| %s | %s |\n", r.what, strings.Join(r.cells, " | "))
	}
	if x.notes != "" {
		fmt.Fprintf(&b, "\n%s\n", x.notes)
	}
	return b.String()
}

// cast is everyone who tries to gain access.
type cast struct {
	w                             *world
	rome, paris, oslo, bari, riga *person
	token                         *person
	stranger, expired             *person // their JWT: signed by a foreign key; for rome and properly signed, but expired
	coreOutside, coreWithin       *person
	thief                         *person // signed a new user with gamma's stolen key before that domain was revoked
}

// TestPermissionMatrix tries every subject, message, object, call and log as each member of the cast and compares the
// results with docs/threats.md. Without root it cannot switch accounts: then it checks calls and logs only partly and
// does not compare them.
func TestPermissionMatrix(t *testing.T) {
	w := newWorld(t, "localhost")
	first := w.releases()
	c := w.cast()
	tables := []*table{c.subjects(t), c.messages(t), c.objects(t, first), c.calls(t), c.folders(t)}
	c.undisturbed(t)
	var b strings.Builder
	for _, x := range tables {
		if x != nil {
			b.WriteString(x.String())
		}
	}
	b.WriteString("\n")
	compare(t, b.String(), w.as != nil)
}

// compare compares the block in the document with got. With -update it writes the block instead.
func compare(t *testing.T, got string, whole bool) {
	t.Helper()
	doc, err := os.ReadFile(built.threats)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), blockBegins)
	want, after, ok2 := strings.Cut(rest, blockEnds)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks of the matrix are gone: %s", built.threats, blockBegins)
	}
	switch {
	case *update && whole:
		if err := os.WriteFile(built.threats, []byte(before+blockBegins+got+blockEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case *update:
		t.Error("only root can become other accounts, and write the whole matrix")
	case whole:
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("docs/threats.md promises (-) what is not so (+):\n%s", d)
		}
	default:
		for line := range strings.Lines(got) {
			if !strings.Contains(want, line) {
				t.Errorf("docs/threats.md does not say: %s", line)
			}
		}
	}
}

// packs lists the packs that each release added.
type packs struct{ old, current, image []string }

// releases publishes two releases of package, of which the second needs nothing of the first, and one of image.
func (w *world) releases() (p packs) {
	w.t.Helper()
	w.write("package", "a.bin", strings.Repeat("old ", 50_000))
	p.old = w.publish("package")
	w.write("package", "a.bin", strings.Repeat("new!", 50_000))
	p.current = w.publish("package")
	w.write("image", "i.bin", strings.Repeat("image", 50_000))
	p.image = w.publish("image")
	return p
}

// cast enrolls all sites and revokes some of them.
func (w *world) cast() *cast {
	w.t.Helper()
	c := &cast{w: w, rome: w.enrol(rome), paris: w.enrol(paris), oslo: w.enrol(oslo), bari: w.enrol(bari), riga: w.enrol(riga)}
	for _, p := range []*person{c.rome, c.paris, c.oslo, c.bari, c.riga} {
		if err := p.enter(); err != nil {
			w.t.Fatalf("%s: %v", p.at, err)
		}
		p.listen()
		p.hello()
	}
	w.revoke(c.bari, "site", "revoke", "bari", "--reason", "stolen")
	w.revoke(c.riga, "domain", "revoke", "gamma", "--reason", "sold")
	_, token := w.token("rome")
	seed, _, err := bus.IdentityOf([32]byte(token.Seed))
	if err != nil {
		w.t.Fatal(err)
	}
	c.token = &person{w: w, at: token.Address(), token: token, seed: string(seed), jwt: token.JWT, chain: c.rome.chain}
	if c.token.key, err = bus.Ed25519Of(seed); err != nil {
		w.t.Fatal(err)
	}
	c.forge(token)
	for p, let := range map[*person]bool{c.token: true, c.coreWithin: true, c.stranger: false, c.expired: false, c.coreOutside: false, c.thief: false, c.bari: false, c.riga: false} {
		if err := p.enter(); let && err != nil || !let && err != errOut { //nolint:errorlint // enter returns it bare
			w.t.Fatalf("%s: let in: %v, want %t", p.at, err, let)
		}
	}
	return c
}

// revoke runs a command and expects it to end p's connection.
func (w *world) revoke(p *person, args ...string) {
	w.t.Helper()
	w.must(args...)
	began, limit := time.Now(), time.After(patience)
	for {
		select {
		case e := <-p.events:
			if e.Kind == bus.Lost || e.Kind == bus.Unwelcome {
				w.t.Logf("%s: disconnected after %v", p.at, time.Since(began)) // the design promises a second, of a machine that is not busy
				p.client.Close()
				return
			}
		case <-limit:
			w.t.Fatalf("%s is still connected %v after it was revoked", p.at, patience)
		}
	}
}

// forge creates users with stolen or self-made credentials.
func (c *cast) forge(token *wire.Token) {
	w := c.w
	w.t.Helper()
	user := func(a wire.Address, sign func(public string) (string, error)) *person {
		seed, public, err := bus.NewIdentity()
		if err != nil {
			w.t.Fatal(err)
		}
		p := &person{w: w, at: a, token: token, seed: string(seed), chain: c.rome.chain}
		if p.jwt, err = sign(public); err != nil {
			w.t.Fatal(err)
		}
		if p.key, err = bus.Ed25519Of(seed); err != nil {
			w.t.Fatal(err)
		}
		return p
	}
	theirs := w.authority()
	c.coreOutside = user(rome, func(public string) (string, error) { return theirs.Core(public, time.Hour, time.Now()) })
	c.coreWithin = user(rome, func(public string) (string, error) { return theirs.Core(public, time.Hour, time.Now()) })
	c.expired = user(rome, func(public string) (string, error) {
		return theirs.User(rome.Domain, rome.Site, public, time.Minute, time.Now().Add(-time.Hour))
	})
	c.thief = user(riga, func(public string) (string, error) {
		return theirs.User(riga.Domain, riga.Site, public, time.Hour, time.Now())
	})
	c.stranger = user(rome, func(public string) (string, error) {
		seeds, err := bus.NewSeeds()
		if err != nil {
			return "", err
		}
		seed, err := bus.NewDomainSeed()
		if err != nil {
			return "", err
		}
		seeds.Account = string(w.kept("bus/account"))
		own, err := bus.OpenAuthority(bus.AuthorityOptions{Seeds: seeds, Domains: map[string][][]byte{"alpha": {seed}}})
		if err != nil {
			return "", err
		}
		return own.User(rome.Domain, rome.Site, public, time.Hour, time.Now())
	})
	// The Core's own user can connect only within the Core's process. This process therefore runs a server with the
	// stolen keys.
	ca, err := bus.NewCA("gates", time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	chain, key, err := ca.Server([]string{"localhost"}, time.Now(), time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		w.t.Fatal(err)
	}
	door, err := bus.Start(bus.ServerOptions{Name: "gates", Addr: "127.0.0.1:0", Authority: theirs,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(door.Close)
	c.coreWithin.door = door
}

// subjects tries to publish and subscribe as everyone who can connect.
func (c *cast) subjects(t *testing.T) *table {
	up := []string{wire.VerbHello, wire.VerbBeat, wire.VerbProgress, wire.VerbReport, wire.VerbAsk, wire.VerbRenew, wire.VerbStopped, wire.VerbChallenge, wire.VerbEnrol}
	down := []string{wire.VerbState, wire.VerbAck, wire.VerbConfirmed, wire.VerbURLs, wire.VerbRenewed, wire.VerbNonce, wire.VerbGrant, wire.VerbRefuse}
	each := func(a wire.Address, say func(wire.Address, string) string, verbs []string) (all []string) {
		for _, v := range verbs {
			all = append(all, say(a, v))
		}
		return all
	}
	other := wire.Address{Domain: wire.EnrolDomain, Site: "0123456789abcdef"}
	classes := []struct {
		name     string
		subjects []string
	}{
		{"`nf.up.alpha.rome.<verb>`", each(rome, wire.Address.Up, up)},
		{"`nf.down.alpha.rome.<verb>`", each(rome, wire.Address.Down, down)},
		{"`nf.up.alpha.paris.<verb>`", each(paris, wire.Address.Up, up)},
		{"`nf.down.alpha.paris.<verb>`", each(paris, wire.Address.Down, down)},
		{"`nf.up.beta.oslo.<verb>`", each(oslo, wire.Address.Up, up)},
		{"`nf.down.beta.oslo.<verb>`", each(oslo, wire.Address.Down, down)},
		{"`nf.up.enroll.<the token>.<verb>`", each(c.token.at, wire.Address.Up, up)},
		{"`nf.down.enroll.<the token>.<verb>`", each(c.token.at, wire.Address.Down, down)},
		{"`nf.up.enroll.<another token>.<verb>`", each(other, wire.Address.Up, up)},
		{"`nf.down.enroll.<another token>.<verb>`", each(other, wire.Address.Down, down)},
		{"`nf.up.>`", []string{"nf.up.>"}},
		{"`nf.down.>`", []string{"nf.down.>"}},
		{"`nf.up.alpha.>`, `nf.up.enroll.>`, `nf.up.*.rome.beat`", []string{"nf.up.alpha.>", "nf.up.enroll.>", "nf.up.*.rome.beat"}},
		{"`nf.down.alpha.>`, `nf.down.enroll.>`, `nf.down.*.rome.>`, `nf.down.alpha.*.state`, `nf.*.alpha.rome.>`",
			[]string{"nf.down.alpha.>", "nf.down.enroll.>", "nf.down.*.rome.>", "nf.down.alpha.*.state", "nf.*.alpha.rome.>"}},
		{"`>`, `*`, `nf.>`, `*.*.*.*.*`", []string{">", "*", "nf.>", "*.*.*.*.*"}},
		{"`_INBOX.>`, `_INBOX.x`, `_INBOX.alpha.rome.x`", []string{"_INBOX.>", "_INBOX.x", "_INBOX.alpha.rome.x"}},
		{"`$SYS.>`, `$SYS.REQ.USER.INFO`, `$SYS.REQ.SERVER.PING`, `$SYS.REQ.CLAIMS.UPDATE`", []string{"$SYS.>", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.CLAIMS.UPDATE"}},
		{"`$JS.>`, `$JS.API.INFO`, `$JS.ACK.x`", []string{"$JS.>", "$JS.API.INFO", "$JS.ACK.x"}},
		{"`nf`, `rome`, `nf.x.alpha.rome.beat`, `x.nf.up.alpha.rome.beat`", []string{"nf", "rome", "nf.x.alpha.rome.beat", "x.nf.up.alpha.rome.beat"}},
	}
	in := []*person{c.token, c.rome, c.paris, c.oslo, c.coreWithin}
	x := &table{
		title: "**Subjects**: who may publish (P) and subscribe (S). Whoever is not named is not let in: somebody without an identity or with one that no key of the Core has signed, " +
			"a revoked site, a site of a revoked domain, a new user by that domain's stolen key, a user whose JWT has ended, and the Core's own user from outside its process.",
		roles: []string{"holder of the token", "rome (alpha)", "paris (alpha)", "oslo (beta)", "the Core, from within"},
	}
	for _, class := range classes {
		var cells []string
		for i, p := range in {
			p := p.again() // a connection may have only few subscriptions
			cell := ""
			for j, s := range class.subjects {
				one := ""
				if p.may(true, s) && !strings.ContainsAny(s, "*>") {
					one += "P"
				}
				if p.may(false, s) {
					one += "S"
				}
				if one == "" {
					one = "–"
				}
				if j > 0 && one != cell {
					t.Errorf("%s: %s is %s, %s is %s", x.roles[i], class.subjects[0], cell, s, one)
				}
				cell = one
			}
			cells = append(cells, cell)
			p.client.Close()
		}
		x.add(class.name, cells...)
	}
	return x
}

// again opens a second connection as the same person.
func (p *person) again() *person {
	p.w.t.Helper()
	twin := *p
	if err := twin.enter(); err != nil {
		p.w.t.Fatalf("%s: %v", p.at, err)
	}
	return &twin
}

// undisturbed fails if an attempt by others, or a reload, disconnected a site.
func (c *cast) undisturbed(t *testing.T) {
	for _, p := range []*person{c.rome, c.paris, c.oslo} {
		for len(p.events) > 0 {
			if e := <-p.events; e.Kind != bus.Connected {
				t.Errorf("%s: %v %v", p.at, e.Kind, e.Err)
			}
		}
	}
}
