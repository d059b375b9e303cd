//go:build linux

package gates

import (
	"crypto/ed25519"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/wire"
)

// messages sends messages with various signatures on rome's own subjects, as a compromised bus or its operator could.
func (c *cast) messages(t *testing.T) *table {
	_, nobody, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signers := []struct {
		name string
		key  ed25519.PrivateKey
		at   wire.Address // address that the signature covers
	}{
		{"rome", c.rome.key, rome},
		{"rome, but about paris", c.rome.key, paris},
		{"paris, about rome", c.paris.key, rome},
		{"paris, about paris", c.paris.key, paris},
		{"oslo, about rome", c.oslo.key, rome},
		{"a revoked site, about rome", c.bari.key, rome},
		{"the token's key", c.token.key, rome},
		{"a key that nobody knows", nobody, rome},
	}
	all := []struct {
		verb, answer string
		body         func(i int) any
	}{
		{wire.VerbHello, wire.VerbState, func(int) any {
			return &wire.Hello{Generation: make([]byte, 16), Version: "test", System: "test/test", At: time.Now().UnixMilli()}
		}},
		{wire.VerbBeat, "", func(int) any { return &wire.Beat{At: time.Now().UnixMilli(), Trust: 99} }},
		{wire.VerbProgress, "", func(int) any { return &wire.Progress{Run: make([]byte, 16), Channel: "package"} }},
		{wire.VerbStopped, "", func(int) any { return &wire.Stopped{} }},
		{wire.VerbReport, wire.VerbAck, func(i int) any {
			body, err := wire.Encode(&wire.Problem{Kind: "disk", Text: "a problem"})
			if err != nil {
				t.Fatal(err)
			}
			return &wire.Report{Generation: make([]byte, 16), First: uint64(i + 1), Events: []wire.Event{{At: time.Now().UnixMilli(), Kind: wire.ProblemEvent, Body: body}}}
		}},
		{wire.VerbAsk, wire.VerbURLs, func(int) any { return &wire.Ask{ID: 1, Keys: []string{"format"}} }},
		{wire.VerbRenew, wire.VerbRenewed, func(int) any { return &wire.Renew{At: time.Now().Unix()} }},
		{wire.VerbChallenge, wire.VerbNonce, func(int) any { return &wire.Challenge{} }},
		{wire.VerbEnrol, wire.VerbGrant, func(int) any { return &wire.Enrol{} }},
	}
	x := &table{title: "**Messages** on rome's own subjects, by who signed them: does the Core take them? What it does not is refused, audited and an incident; rome is told why."}
	for _, s := range signers {
		x.roles = append(x.roles, "signed by "+s.name)
	}
	n := 0
	for _, m := range all {
		var cells []string
		for _, s := range signers {
			msg := c.rome.sign(s.key, s.at, m.verb, m.body(n))
			cell := c.taken(m.verb, m.answer, msg)
			if cell == open && m.verb == wire.VerbReport {
				n++
			}
			cells = append(cells, cell)
		}
		x.add("`"+m.verb+"`", cells...)
	}
	return x
}

// taken sends a message on rome's subject and reports whether the Core accepts it. If the message has no answer, it
// sends a second one that has: the Core handles them in order.
func (c *cast) taken(verb, answer string, msg []byte) string {
	p := c.rome
	for len(p.in) > 0 {
		<-p.in
	}
	p.say(verb, msg)
	var no wire.Refusal
	heard := map[string]any{wire.VerbRefuse: &no}
	switch answer {
	case "":
		heard[wire.VerbRenewed] = new(wire.Renewed)
		p.say(wire.VerbRenew, p.sign(p.key, p.at, wire.VerbRenew, &wire.Renew{}))
	case wire.VerbState:
		heard[answer] = new(wire.State)
	case wire.VerbAck:
		heard[answer] = new(wire.Ack)
	case wire.VerbURLs:
		heard[answer] = new(wire.URLs)
	case wire.VerbRenewed:
		heard[answer] = new(wire.Renewed)
	case wire.VerbNonce:
		heard[answer] = new(wire.Nonce)
	case wire.VerbGrant:
		heard[answer] = new(wire.Grant)
	}
	got := p.answer(heard)
	if answer == "" && got == wire.VerbRefuse {
		p.answer(map[string]any{wire.VerbRenewed: new(wire.Renewed)})
	}
	if got != wire.VerbRefuse {
		if r, ok := heard[wire.VerbRenewed].(*wire.Renewed); ok {
			if g, err := bus.ReadGrant(r.JWT); err != nil || g.Name != "rome" {
				p.w.t.Errorf("renewed as %q: %v", g.Name, err)
			}
			p.w.hide("renewed JWT "+r.JWT[len(r.JWT)-8:], r.JWT)
		}
		return open
	}
	if no.Of != verb {
		p.w.t.Errorf("a refusal of %q, want %q", no.Of, verb)
	}
	return "no: " + no.Code
}
