//go:build linux

package gates

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/wire"
)

func fromHex(s string) ([]byte, error) { return hex.DecodeString(s) }

// person is a client of the bus with its credentials.
type person struct {
	w     *world
	at    wire.Address // address that it has or claims
	token *wire.Token
	seed  string
	jwt   string
	key   ed25519.PrivateKey
	chain *wire.Chain
	door  *bus.Server // if set, connects within the process of this server

	client *bus.Client
	events chan bus.Event
	in     chan said
	tries  int
}

type said struct {
	verb string
	data []byte
}

// errOut reports that a client was refused altogether.
var errOut = errors.New("not let in")

// enter connects. It returns errOut if the bus refuses the client.
func (p *person) enter() error {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.t.Context(), patience)
	defer cancel()
	p.events, p.in = make(chan bus.Event, 10_000), make(chan said, 10_000)
	unwelcome := false
	o := bus.ClientOptions{URLs: []string{"tls://localhost:" + p.w.port}, Pins: []bus.Pin{bus.Pin(p.token.CA)}, JWT: func() (string, error) { return p.jwt, nil },
		Seed: []byte(p.seed), Name: "gates", MaxBackoff: 100 * time.Millisecond, OnEvent: func(e bus.Event) {
			unwelcome = unwelcome || e.Kind == bus.Unwelcome
			p.events <- e
		}}
	if p.door != nil {
		o.URLs, o.Pins, o.Server = nil, nil, p.door
	}
	c, err := bus.Dial(ctx, o)
	if err != nil {
		for {
			select {
			case e := <-p.events:
				if e.Kind == bus.Unwelcome {
					return errOut
				}
			default:
				if strings.Contains(strings.ToLower(err.Error()), "authorization") || strings.Contains(strings.ToLower(err.Error()), "authentication") {
					return errOut
				}
				return err
			}
		}
	}
	p.client = c
	p.w.t.Cleanup(c.Close)
	return nil
}

// may tries a subject and reports whether the bus allows it.
func (p *person) may(publish bool, subject string) bool {
	p.w.t.Helper()
	t := p.w.t
	p.tries++
	// A message on a forbidden subject follows. Its refusal proves that any refusal of the first has arrived.
	end := fmt.Sprintf("nobody.%d", p.tries)
	var err error
	if publish {
		err = p.client.Publish(subject, []byte("x"))
	} else {
		err = p.client.Subscribe(subject, func(string, []byte) {})
	}
	if err == nil {
		err = p.client.Publish(end, nil)
	}
	if err == nil {
		err = p.client.Flush(t.Context())
	}
	if err != nil {
		t.Fatalf("%s: %q: %v", p.at, subject, err)
	}
	refused := false
	limit := time.After(patience)
	for {
		select {
		case e := <-p.events:
			switch {
			case e.Kind != bus.Denied:
				if e.Kind != bus.Connected {
					t.Fatalf("%s: %q: %v %v", p.at, subject, e.Kind, e.Err)
				}
			case strings.Contains(e.Err.Error(), `"`+end+`"`):
				return !refused
			case strings.Contains(e.Err.Error(), `"`+subject+`"`):
				refused = true
			}
		case <-limit:
			t.Fatalf("%s: %q: the bus does not answer", p.at, subject)
		}
	}
}

// listen subscribes to the Core's messages to p.
func (p *person) listen() {
	p.w.t.Helper()
	err := p.client.Subscribe(p.at.AllDown(), func(subject string, data []byte) {
		if _, verb, err := wire.ParseDown(subject); err == nil {
			p.in <- said{verb, data}
		}
	})
	if err == nil {
		err = p.client.Flush(p.w.t.Context())
	}
	if err != nil {
		p.w.t.Fatal(err)
	}
}

// sign returns a message about address a, signed with key.
func (p *person) sign(key ed25519.PrivateKey, a wire.Address, verb string, v any) []byte {
	p.w.t.Helper()
	b, err := wire.Sign(key, p.token.Repo, a, verb, 0, v)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return b
}

// say publishes a message on p's own subject.
func (p *person) say(verb string, msg []byte) {
	p.w.t.Helper()
	if err := p.client.Publish(p.at.Up(verb), msg); err != nil {
		p.w.t.Fatal(err)
	}
}

// answer waits for a message with one of the given verbs, decodes it and returns its verb.
func (p *person) answer(into map[string]any) string {
	p.w.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case s := <-p.in:
			v, ok := into[s.verb]
			if !ok {
				continue
			}
			if _, _, err := p.chain.OpenDown(s.data, p.at, s.verb, v); err != nil {
				p.w.t.Fatalf("%s: what the Core said on %s: %v", p.at, s.verb, err)
			}
			return s.verb
		case <-limit:
			p.w.t.Fatalf("%s: no answer\n%s", p.at, p.w.out)
		}
	}
}

// hello makes the Core send the site's desired state.
func (p *person) hello() *wire.State {
	p.w.t.Helper()
	p.say(wire.VerbHello, p.sign(p.key, p.at, wire.VerbHello, &wire.Hello{Generation: make([]byte, 16), Version: "test", System: "test/test", At: time.Now().UnixMilli(), Trust: p.chain.Number}))
	var st wire.State
	p.answer(map[string]any{wire.VerbState: &st})
	return &st
}

// ask requests URLs. It returns errOut if the Core refuses the whole request.
func (p *person) ask(keys ...string) (*wire.URLs, error) {
	p.w.t.Helper()
	p.tries++
	for len(p.in) > 0 {
		<-p.in
	}
	p.say(wire.VerbAsk, p.sign(p.key, p.at, wire.VerbAsk, &wire.Ask{ID: uint64(p.tries), Keys: keys}))
	var u wire.URLs
	var no wire.Refusal
	if p.answer(map[string]any{wire.VerbURLs: &u, wire.VerbRefuse: &no}) == wire.VerbRefuse {
		return nil, fmt.Errorf("%w: %s", errOut, no.Code)
	}
	for _, l := range u.Lent {
		p.w.hide("URL lent to "+p.at.Site+" of "+l.Key, signature(p.w.t, l.URL))
	}
	return &u, nil
}

// signature returns the secret part of a presigned URL.
func signature(t *testing.T, raw string) string {
	t.Helper()
	_, s, ok := strings.Cut(raw, "X-Amz-Signature=")
	s, _, _ = strings.Cut(s, "&")
	if !ok || len(s) < 32 {
		t.Fatal("a lent URL has no signature")
	}
	return s
}
