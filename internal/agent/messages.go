package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/frame"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// handleMessage takes one message of the Core. An error ends the agent: its database
// does not keep what it must.
func (a *agent) handleMessage(ctx context.Context, subject string, data []byte) error {
	to, verb, err := wire.ParseDown(subject)
	if err != nil || to != a.id.Address() {
		return nil // the bus lets nobody say that
	}
	switch verb {
	case wire.VerbState:
		var v wire.State
		m, err := a.openMessage(ctx, data, verb, &v)
		if err != nil {
			return a.reportForged(ctx, err)
		}
		return a.acceptState(ctx, m.Number, &v)
	case wire.VerbAck:
		var v wire.Ack
		m, err := a.openMessage(ctx, data, verb, &v)
		if err != nil {
			return a.reportForged(ctx, err)
		}
		select {
		case a.acks <- ack{of: v.Generation, upTo: m.Number, want: v.Want, full: v.Full}:
		default: // the one that waits will be late, and the batch be sent again
		}
	case wire.VerbURLs:
		var v wire.URLs
		if _, err := a.openMessage(ctx, data, verb, &v); err != nil {
			return a.reportForged(ctx, err)
		}
		a.urls.Answer(&v)
	case wire.VerbConfirmed:
		var v wire.Confirmed
		if _, err := a.openMessage(ctx, data, verb, &v); err != nil {
			return a.reportForged(ctx, err)
		}
		a.halts.answers.handleConfirmed(&v)
	case wire.VerbRenewed:
		var v wire.Renewed
		if _, err := a.openMessage(ctx, data, verb, &v); err != nil {
			return a.reportForged(ctx, err)
		}
		return a.keepCredential(v.JWT)
	case wire.VerbRefuse:
		var v wire.Refusal
		if _, err := a.openMessage(ctx, data, verb, &v); err != nil {
			return a.reportForged(ctx, err)
		}
		a.logNote(Warning, "", fmt.Sprintf("the Core refuses %s as %s", v.Of, v.Code), errors.New(v.Why))
	}
	return nil
}

// spoolError marks an error of the spool, which must end the agent.
type spoolError struct{ error }

func (e spoolError) Unwrap() error { return e.error }

// openMessage checks a message by the keyring.
func (a *agent) openMessage(ctx context.Context, data []byte, verb string, v any) (wire.Signed, error) {
	next := a.keys.current()
	m, newer, err := next.OpenDown(data, a.id.Address(), verb, v)
	if err == nil {
		a.noteHeard()
	}
	if newer {
		if err := a.keys.accept(ctx, next); err != nil {
			return m, err
		}
	}
	return m, err
}

// reportForged reports a message that is not the Core's, or not for us.
func (a *agent) reportForged(ctx context.Context, err error) error {
	if s := (spoolError{}); errors.As(err, &s) {
		return s
	}
	a.logNote(Error, "", "a message in the Core's name is refused", err)
	text := fmt.Sprintf("a message in the Core's name was refused: %v: an attacker with write access to the message bus may be trying to control this site", err)
	if newer := (*frame.NewerError)(nil); errors.As(err, &newer) {
		text = fmt.Sprintf("the Core uses a newer protocol: %v: upgrade nightferry-agent here", err)
	}
	return a.reportProblem(ctx, ProblemControl, "", text)
}

// acceptState makes a state durable, and then acts upon it.
func (a *agent) acceptState(ctx context.Context, revision uint64, v *wire.State) error {
	a.mu.Lock()
	old := a.revision
	a.mu.Unlock()
	a.halts.noteAlive(v.At)
	if len(v.Halt) > 0 {
		if _, err := a.halts.takeHalts(ctx, v.Halt); err != nil {
			return a.reportForged(ctx, err)
		}
	}
	if revision == 0 || revision < old {
		return nil // the Core withholds the desired state, or the message is late
	}
	a.coreClock.set(time.UnixMilli(v.At), a.o.Now())
	if v.Store != a.id.Store {
		a.logNote(Error, "", fmt.Sprintf("the Core names %q as the store, enrolled is %q: refused", v.Store, a.id.Store), nil)
		return a.reportProblem(ctx, ProblemControl, "", fmt.Sprintf("the Core names %q as the store, and this site is enrolled for %q: enroll it again if the store has moved", v.Store, a.id.Store))
	}
	a.moveCore(v.Core)
	kept := *v
	kept.Halt, kept.Withheld = nil, nil // halt orders are kept apart
	a.mu.Lock()
	kept.Desired = lapseRequests(a.state, v.Desired)
	for _, channel := range v.Withheld {
		if d := findDesired(a.state, channel); d != nil {
			kept.Desired = append(kept.Desired, *d)
		}
	}
	a.mu.Unlock()
	b, err := wire.Encode(&kept)
	if err != nil {
		return err
	}
	if revision > old || a.state == nil {
		if err := a.spool.Keep(ctx, spool.State, spool.Numbered{Number: revision, Object: b}); err != nil {
			return err
		}
	}
	now := readNight(&kept)
	a.halts.updateSite(&kept, now.motion) // before anything starts under the new state
	a.mu.Lock()
	before, beat := a.night, beatOf(a.state)
	a.state, a.night, a.revision = &kept, now, revision
	motion := a.night.motion
	another := beatOf(a.state) != beat
	rehearsed := motion.On() && (before == nil || before.motion != motion)
	refused := a.night.refused
	for channel, j := range a.running {
		if d := findDesired(a.state, channel); d != nil {
			setRate(j.rate, d.Rate)
		}
	}
	a.mu.Unlock()
	if revision > old {
		a.logNote(Info, "", fmt.Sprintf("the Core states revision %d", revision), nil)
		a.mu.Lock()
		clear(a.next) // somebody may have mended what failed
		a.mu.Unlock()
		a.preparing.planAgain() // the index may have moved, or the window
	}
	if rehearsed {
		a.logNote(Warning, "", fmt.Sprintf("THIS IS A REHEARSAL of the Core: windows and rates are those of %s, %d times as fast as the real time", motion.At(a.o.Now()).UTC().Format("2006-01-02 15:04 MST"), motion.Speed), nil)
	}
	if err := a.checkClocks(ctx); err != nil {
		return err
	}
	if refused != nil {
		a.logNote(Error, "", "nothing moves", refused)
		err = a.reportProblem(ctx, ProblemControl, "", refused.Error())
	} else {
		err = a.resolveProblem(ctx, ProblemControl, "")
	}
	if err != nil {
		return err
	}
	a.applyWindows(a.o.Now()) // at once: the loop may be busy with the spool
	if wire.IncarnationOf(revision) != wire.IncarnationOf(old) {
		a.hello.wake() // the Core was started, perhaps from a backup: it compares its records with this site's
	}
	if another {
		a.beat.wake() // else a Core that states often would put off each beat
	}
	a.work.wake()
	return nil
}

// lapseRequests returns the desired state without the right to move outside a window, where a sync request gave that
// for an earlier release than the one that is desired now. before is the state until now; nil: none.
func lapseRequests(before *wire.State, desired []wire.Desired) []wire.Desired {
	out := slices.Clone(desired)
	for i := range out {
		d := &out[i]
		if old := findDesired(before, d.Channel); old != nil && old.Start == d.Start && old.Number != 0 && (old.Number != d.Number || !old.Now) {
			d.Now = false
		}
	}
	return out
}

// maxCore bounds the addresses of the Core that a site keeps.
const maxCore = 16

// moveCore keeps the addresses by which the Core is to be reached from now on.
// The former ones stay behind them: the new ones may be a mistake.
func (c *session) moveCore(urls []string) {
	all := slices.Clone(urls)
	for _, u := range c.id.Core {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	all = all[:min(len(all), maxCore)]
	if len(urls) == 0 || slices.Equal(all, c.id.Core) {
		return
	}
	err := c.bus.SetURLs(all)
	if err == nil {
		err = c.id.keepCore(c.root, all)
	}
	if err != nil {
		c.logNote(Error, "", "the Core's new addresses are not kept", err)
		return
	}
	c.logNote(Info, "", "the Core is at "+strings.Join(urls, ", "), nil)
}

// keepCredential keeps a new credential, which the next connection uses.
func (c *session) keepCredential(jwt string) error {
	g, err := bus.ReadGrant(jwt)
	if err != nil {
		c.logNote(Warning, "", "a new credential is refused", err)
		return nil
	}
	old, err := bus.ReadGrant(c.jwt)
	if err == nil && (g.Public != old.Public || g.Expires.Before(old.Expires)) {
		c.logNote(Warning, "", "a new credential is refused: it is for another key, or ends earlier", nil)
		return nil
	}
	if err := writeOwn(c.root, jwtFile, []byte(jwt+"\n")); err != nil {
		c.logNote(Error, "", "the new credential cannot be kept, and is asked for again", err)
		return nil
	}
	c.mu.Lock()
	c.jwt = jwt
	c.mu.Unlock()
	c.logNote(Info, "", "the credential is renewed until "+g.Expires.UTC().Format(time.DateOnly), nil)
	return nil
}

func findDesired(s *wire.State, channel string) *wire.Desired {
	if s == nil {
		return nil
	}
	for i := range s.Desired {
		if s.Desired[i].Channel == channel {
			return &s.Desired[i]
		}
	}
	return nil
}
