package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// simAgent is a site that the Core cannot tell from a real one: it has an identity and a JWT from a real enrollment,
// its own TLS connection, and signed messages. It holds state and sends reports, but transfers no content.
type simAgent struct {
	id   *agent.Identity
	seed []byte
	jwt  string
	key  ed25519.PrivateKey
	bus  *bus.Client
	news chan<- simNews

	mu         sync.Mutex // guards the fields that the handler shares with others
	chain      wire.Chain
	state      wire.State
	revision   uint64
	holds      []wire.Held
	spooled    uint64 // events of a report that is not acknowledged
	generation []byte
	acked      chan uint64
	lost       int // connections that broke
	bad        error
}

// simNews is a state that an agent has applied.
type simNews struct {
	site  string
	start uint64 // of its first channel
	at    time.Time
}

// enrolSim enrols a site by its token, and reads its stored identity back.
func enrolSim(ctx context.Context, dir, token string, news chan<- simNews) (*simAgent, error) {
	id, err := agent.Enrol(ctx, token, agent.EnrolOptions{StateDir: dir, Allow: []string{filepath.Join(dir, "target")}, Version: "simulated", Now: time.Now, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	seed, err := os.ReadFile(filepath.Join(dir, "identity.seed"))
	if err != nil {
		return nil, err
	}
	jwt, err := os.ReadFile(filepath.Join(dir, "user.jwt"))
	if err != nil {
		return nil, err
	}
	a := &simAgent{id: id, seed: []byte(strings.TrimSpace(string(seed))), jwt: strings.TrimSpace(string(jwt)), news: news,
		chain: wire.Chain{Repo: id.Repo, Root: id.Root}, generation: make([]byte, 16), acked: make(chan uint64, 16)}
	random := rand.NewChaCha8([32]byte(append([]byte(id.Site), make([]byte, 32)...)))
	if _, err := random.Read(a.generation); err != nil {
		return nil, err
	}
	if _, err := a.chain.Follow(id.Trust); err != nil {
		return nil, err
	}
	a.key, err = bus.Ed25519Of(a.seed)
	return a, err
}

// connect dials, subscribes and sends the first hello.
func (a *simAgent) connect(ctx context.Context) error {
	var err error
	a.bus, err = bus.Dial(ctx, bus.ClientOptions{URLs: a.id.Core, Pins: []bus.Pin{bus.Pin(a.id.CA)}, JWT: func() (string, error) { return a.jwt, nil }, Seed: a.seed,
		Name: a.id.Site, Timeout: time.Minute, OnEvent: func(e bus.Event) {
			if e.Kind != bus.Connected && e.Kind != bus.Closed {
				a.mu.Lock()
				a.lost++
				a.mu.Unlock()
			}
		}})
	if err != nil {
		return err
	}
	if err := a.bus.Subscribe(a.id.Address().AllDown(), a.hear); err != nil {
		return err
	}
	if err := a.bus.Flush(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	hello := wire.Hello{Generation: a.generation, Version: "simulated", System: "none/none", At: time.Now().UnixMilli(), Trust: a.chain.Number, Revision: a.revision, Holds: a.holds, Spooled: a.spooled}
	a.mu.Unlock()
	return a.say(wire.VerbHello, &hello)
}

func (a *simAgent) say(verb string, v any) error {
	b, err := wire.Sign(a.key, a.id.Repo, a.id.Address(), verb, 0, v)
	if err != nil {
		return err
	}
	return a.bus.Publish(a.id.Address().Up(verb), b)
}

// hear checks each message as a site does: an invalid or malformed message fails the measurement.
func (a *simAgent) hear(subject string, data []byte) {
	_, verb, err := wire.ParseDown(subject)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
	case verb == wire.VerbState:
		var s wire.State
		var m wire.Signed
		if m, _, err = a.chain.OpenDown(data, a.id.Address(), verb, &s); err == nil && m.Number >= a.revision && len(s.Desired) > 0 {
			a.state, a.revision = s, m.Number
			a.news <- simNews{a.id.Site, s.Desired[0].Start, time.Now()} // has room for every message of the measurement
		}
	case verb == wire.VerbAck:
		var k wire.Ack
		var m wire.Signed
		if m, _, err = a.chain.OpenDown(data, a.id.Address(), verb, &k); err == nil {
			if k.Full || k.Want != 0 {
				err = fmt.Errorf("an acknowledgement that wants %d, full %t", k.Want, k.Full)
				break
			}
			select {
			case a.acked <- m.Number:
			default:
			}
		}
	case verb == wire.VerbRefuse:
		var r wire.Refusal
		if _, _, err = a.chain.OpenDown(data, a.id.Address(), verb, &r); err == nil {
			err = fmt.Errorf("the Core refuses %s: %s", r.Of, r.Why)
		}
	}
	if err != nil && a.bad == nil {
		a.bad = fmt.Errorf("%s hears %q: %w", a.id.Site, subject, err)
	}
}

// live sends heartbeats until ctx ends.
func (a *simAgent) live(ctx context.Context) {
	first := time.Duration(rand.Int64N(int64(30 * time.Second)))
	for wait := first; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		a.mu.Lock()
		beat := wire.Beat{At: time.Now().UnixMilli(), Trust: a.chain.Number, Revision: a.revision, Holds: a.holds, Spooled: a.spooled}
		wait = max(time.Second, time.Duration(a.state.Beat)*time.Second)
		a.mu.Unlock()
		if err := a.say(wire.VerbBeat, &beat); err != nil && !errors.Is(err, bus.ErrAway) {
			return
		}
	}
}

func (a *simAgent) setHolds(list []wire.Held, spooled uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds, a.spooled = list, spooled
}

// report sends the outcome of every file of a first pull, and waits for the acknowledgement until ctx ends.
func (a *simAgent) report(ctx context.Context, tree [32]byte, sizes []int64) error {
	a.mu.Lock()
	state, revision := a.state, a.revision
	a.mu.Unlock()
	if len(state.Desired) != 1 || state.Desired[0].Number == 0 {
		return fmt.Errorf("%s was not told of a release", a.id.Site)
	}
	r, err := a.run(&state.Desired[0], revision, tree, sizes)
	if err != nil {
		return err
	}
	last := uint64(len(r.Events))
	d := &state.Desired[0]
	a.setHolds([]wire.Held{{Channel: d.Channel, Number: d.Number, Release: d.Release, Verified: time.Now().Unix()}}, last)
	for {
		if err := a.say(wire.VerbReport, r); err != nil && !errors.Is(err, bus.ErrAway) {
			return err
		}
		again := time.NewTimer(30 * time.Second)
		for heard := uint64(0); heard < last; {
			select {
			case <-ctx.Done():
				again.Stop()
				return fmt.Errorf("%s waits for an acknowledgement: %w", a.id.Site, context.Cause(ctx))
			case heard = <-a.acked:
				if heard >= last {
					again.Stop()
					a.setHolds(a.holds, 0)
					return nil
				}
			case <-again.C:
				heard = last
			}
		}
	}
}

// run makes the job data of a run: its start, an outcome per file, and its end with the attestation.
func (a *simAgent) run(d *wire.Desired, revision uint64, tree [32]byte, sizes []int64) (*wire.Report, error) {
	id := make([]byte, 16)
	copy(id, a.generation)
	id[15] ^= 0xff
	now := time.Now()
	outcomes := make([]wire.File, len(sizes))
	var total int64
	for i, n := range sizes {
		outcomes[i] = wire.File{Outcome: runs.FileAdded, Ordinal: uint64(i), Fetched: n}
		total += n
	}
	n := int64(len(sizes))
	proof, err := wire.SignAttestation(a.key, a.id.Repo, a.id.Address(), d.Number, &wire.Attestation{
		Channel: d.Channel, Nonce: d.Nonce, Release: d.Release, Tree: tree, Files: n, Bytes: total, ReadFiles: n, ReadBytes: total, OldestRead: now.Unix(), At: now.Unix(),
	})
	if err != nil {
		return nil, err
	}
	r := &wire.Report{Generation: a.generation, First: 1}
	add := func(kind wire.EventKind, body []byte, err2 error) {
		r.Events = append(r.Events, wire.Event{Run: id, Channel: d.Channel, At: now.UnixMilli(), Kind: kind, Body: body})
		err = errors.Join(err, err2)
	}
	body, e := wire.Encode(&wire.Started{Number: d.Number, Release: d.Release, Start: d.Start})
	add(wire.StartedEvent, body, e)
	body, e = wire.EncodeOutcomes(outcomes)
	add(wire.OutcomesEvent, body, e)
	body, e = wire.Encode(&wire.Finished{Verdict: "verified", Totals: runs.Totals{Files: n, Bytes: total, Counts: runs.Counts{Added: n}, Fetched: total, Wire: total}, Attestation: proof})
	add(wire.FinishedEvent, body, e)
	return r, err
}
