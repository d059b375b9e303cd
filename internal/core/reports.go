package core

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"fmt"

	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/reports"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// newReports makes the service that commits what sites report, and the renderer of
// logs.
func (c *Core) newReports() (*reports.Service, *reports.Renderer) {
	out := reportNotices{&c.notices, &c.refusals}
	r := reports.NewRenderer(reports.RenderOptions{
		Ledger: c.ledger, Logs: c.logs, Releases: c.releases, Notices: out, Incidents: c.incidents,
		Unchanged: func(channel string) bool {
			ch := c.settings.Load().Fleet.Channel(channel)
			return ch != nil && ch.LogUnchanged
		},
	})
	return reports.New(reports.Options{
		Ledger: c.ledger, Published: c.ledger, Measured: &c.ledger.Measurements, Incidents: c.incidents, Notices: out, Releases: c.releases,
		Now: c.o.Now, Wall: c.clock.wallTime, Calendar: c.clock.motion.At,
		Fleet:     func() *fleet.Fleet { return c.settings.Load().Fleet },
		Repo:      func() trust.RepoID { return c.storage.repo.Load().ID() },
		GaveNonce: c.storage.gaveNonce, Contested: c.fleet.isContested, PanicSite: panicSite,
	}), r
}

// reportNotices reports for the reports service.
type reportNotices struct {
	*notices
	refusals *refusals
}

// RefusedAttestation implements reports.Notices.
func (n reportNotices) RefusedAttestation(ctx context.Context, a wire.Address, why string) {
	n.refusals.countRefusal("attestation")
	if n.refusals.isDue(a, "attestation") {
		_ = n.audits.Audit(ctx, ledger.Deed{Who: a.String(), What: "refused attestation", Object: a.String(), Detail: why})
	}
}

// gaveNonce reports whether the Core issued the nonce for that site, channel and release.
func (s *storage) gaveNonce(a wire.Address, channel string, number trust.ReleaseNumber, nonce []byte) bool {
	if len(nonce) != 16 {
		return false
	}
	want := s.keys.Load().nonceOf(a, channel, number, binary.BigEndian.Uint64(nonce))
	return hmac.Equal(want[:], nonce)
}

// handleReport commits a site's report, answers it and emits what it led to.
func (c *Core) handleReport(ctx context.Context, m message, x *site, key trust.Public, v *wire.Report) {
	a := m.from
	if c.incarnation.Older() != nil {
		// The other Core's ledger is the one that lasts: the site keeps its events for it.
		c.down.sendSigned(a, wire.VerbAck, 0, &wire.Ack{Generation: v.Generation, Full: true})
		return
	}
	done := c.reports.Commit(ctx, a, key, v)
	if done.Refused != "" {
		c.refusals.refuseMessage(ctx, m, "forged", done.Refused, kinds.Malformed)
		return
	}
	if done.Ack != nil {
		c.down.sendSigned(a, wire.VerbAck, done.Number, done.Ack)
	}
	if done.Returned && !c.fleet.isContested(a) {
		c.Enrolment.Contested(ctx, a, fmt.Sprintf("two machines use the identity of site %s by turns: this one continues a record of events that another one has replaced. Nothing that they report is believed: stop one of them and enroll the site again, or, if only one is left, nightferry site confirm %s", a.Site, a.Site))
	}
	for _, k := range done.Opened {
		c.notices.emitEvent(Event{Kind: IncidentOpened, Domain: a.Domain, Site: a.Site, Text: k})
	}
	for _, k := range done.Resolved {
		c.notices.emitEvent(Event{Kind: IncidentResolved, Domain: a.Domain, Site: a.Site, Text: k})
	}
	for _, s := range done.Started {
		c.sightings.noteMovement(a, x, s.Channel, s.Run)
		c.notices.emitEvent(Event{Kind: RunStarted, Domain: a.Domain, Site: a.Site, Channel: s.Channel, Run: s.Run.String()})
	}
	for i := range done.Ended {
		run := &done.Ended[i]
		x.mu.Lock()
		if p, ok := x.progress[run.Channel]; ok && p.Run == run.ID {
			delete(x.progress, run.Channel)
		}
		x.mu.Unlock()
		c.notices.endMovement(x, run)
		c.notices.emitEvent(Event{Kind: RunEnded, Domain: a.Domain, Site: a.Site, Channel: run.Channel, Run: run.ID.String(), Text: string(run.State), Ended: run})
	}
	if len(done.Ended) > 0 {
		c.renderer.Kick()
	}
}
