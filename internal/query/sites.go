package query

import (
	"context"
	"slices"
	"strings"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/measure"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// Status returns the fleet's current figures.
func (v *Service) Status(ctx context.Context) (*Status, error) {
	sites, err := v.Sites(ctx, fleet.Scope{})
	if err != nil {
		return nil, err
	}
	self := v.o.Core()
	s := &Status{At: v.o.Now(), Version: self.Version, Repo: self.Repo, Store: self.Store, Sites: len(sites), Channels: v.o.Newest.List(),
		Rehearsal: self.Rehearsal, StoreRead: self.StoreRead, Unread: self.Unread}
	if s.Revision, err = v.o.Records.Revision(ctx); err != nil {
		return nil, err
	}
	for i := range sites {
		x := &sites[i]
		if !x.Enrolled.IsZero() {
			s.Enrolled++
		}
		if x.Connected {
			s.Connected++
		}
		current := len(x.Channels) > 0 && !x.Enrolled.IsZero()
		for _, ch := range x.Channels {
			current = current && ch.State == Current
		}
		if current {
			s.Current++
		}
	}
	s.Measured = []ledger.Measurement{}
	for _, rel := range s.Channels {
		m, err := measure.Known(ctx, v.o.Measured, rel.Channel, rel.Number)
		if err != nil {
			return nil, err
		}
		if m != nil && m.Release == rel.Digest {
			s.Measured = append(s.Measured, *m)
		}
	}
	open, err := v.o.Runs.Runs(ctx, ledger.RunFilter{Open: true})
	if err != nil {
		return nil, err
	}
	s.Running = len(open)
	incidents, err := v.o.Incidents.List(ctx, false)
	if err != nil {
		return nil, err
	}
	s.Incidents = len(incidents)
	s.Halts = len(v.o.Halts().Active)
	s.Halts += v.o.Sites.Halted()
	return s, nil
}

// Sites lists the sites of a scope.
func (v *Service) Sites(ctx context.Context, scope fleet.Scope) ([]SiteStatus, error) {
	list, err := v.o.World().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	held, err := v.Holdings(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel})
	if err != nil {
		return nil, err
	}
	last, err := v.LastRuns(ctx, scope)
	if err != nil {
		return nil, err
	}
	found, err := v.standingFindings(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel})
	if err != nil {
		return nil, err
	}
	lost, err := v.lostTargets(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel})
	if err != nil {
		return nil, err
	}
	revoked, err := v.revocations(ctx, list)
	if err != nil {
		return nil, err
	}
	measured := measure.Cache{Records: v.o.Measured}
	out := make([]SiteStatus, 0, len(list))
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		x, _ := v.o.Sites.Site(a)
		st := SiteStatus{Site: s.Name, Domain: s.Domain, Region: s.Region, Zone: s.Zone, Latitude: s.Latitude, Longitude: s.Longitude, Connected: x.Connected, Seen: x.Seen, Version: x.Sighting.Version,
			ClockOffset: ledger.Seconds(x.Sighting.ClockOffset), Spooled: x.Sighting.Lag, Revision: x.Sighting.Revision, Wanted: v.o.Wanted(a).Revision, refused: x.Refused, refusedAt: x.RefusedAt}
		if x.Identity == nil {
			if d, ok := revoked[s.Name]; ok {
				st.Revoked, st.RevokedWhy = d.At, d.Detail
			}
		} else {
			st.Enrolled, st.JWTExpires, st.Contested = x.Identity.Enrolled, x.Identity.JWTExpires, x.Identity.Contest
		}
		for _, p := range s.Placements {
			key := Row{a, p.Channel}
			ch := v.channelStatus(key, p.Target, held[key], last[key], x.Progress)
			ch.Waiting = v.waitingReason(&s, &st, &ch, x.Waits)
			if m, ok := x.Stalled[p.Channel]; ok && ch.State == Running && ch.Waiting == nil && m.Run.String() == ch.Run {
				ch.stalled = m.At
			}
			h := held[key]
			if ch.Measured, err = measured.Of(ctx, &h); err != nil {
				return nil, err
			}
			f, doubted := found[key]
			if x, ok := lost[key]; ok {
				x.Cause += lastProof(&h)
				ch.lost = &x
			}
			switch {
			case ch.State == "behind", ch.State == Running && ch.Waiting != nil, ch.State == stateNever && !st.Enrolled.IsZero() && v.OrderFor(&s, p.Channel) != nil:
				ch.State = v.stateOf(&s, &st, &ch)
			case ch.lost != nil && (ch.State == Current || ch.State == different):
				ch.State = unproven
			case ch.State != Current:
			case doubted && (f.State == runs.Incomplete || f.State == runs.Unowned):
				ch.State = unproven
			case doubted:
				ch.State = different
			case measure.Contradicts(ch.Measured, &h) != nil:
				ch.State = stateContradicted
			case st.Enrolled.IsZero():
				ch.State = unproven // a site without an identity sends no reports, so it no longer proves anything
			}
			if st.Contested != "" { // its word about a run proves nothing
				ch.State, ch.Waiting, ch.Progress = stateContested, nil, nil
			}
			if ch.lost != nil {
				ch.Verified = time.Time{} // the proof is of content that is not there now
			}
			var finding *ledger.Finding
			if doubted {
				finding = &f
			}
			if ch.Reasons = v.findReasons(&s, &st, &ch, finding); len(ch.Reasons) > 0 {
				ch.Why = ch.Reasons[0].What
			}
			st.Channels = append(st.Channels, ch)
		}
		out = append(out, st)
	}
	return out, nil
}

// revocations returns, for the sites of the list that have no identity, the newest audit entry about the revocation of
// one, with the operator and the reason as the detail.
func (v *Service) revocations(ctx context.Context, list []fleet.Site) (map[string]ledger.Deed, error) {
	out := map[string]ledger.Deed{}
	if !slices.ContainsFunc(list, func(s fleet.Site) bool { return !isEnrolled(v.o.Sites, wire.Address{Domain: s.Domain, Site: s.Name}) }) {
		return out, nil
	}
	deeds, err := v.o.Records.Deeds(ctx, ledger.DeedFilter{What: "revoke"})
	for _, d := range deeds { // the newest first
		site, ok := strings.CutPrefix(d.Object, "site ")
		key, why, _ := strings.Cut(d.Detail, ": ")
		if _, have := out[site]; have || !ok || !strings.HasPrefix(key, "key ") { // without a key, it is about tokens
			continue
		}
		d.Detail = "by " + d.Who
		if why != "" {
			d.Detail += ": " + why
		}
		out[site] = d
	}
	return out, err
}

func (v *Service) channelStatus(key Row, target string, h ledger.Holding, run *ledger.Run, moving map[string]Progress) ChannelStatus {
	want, _ := v.o.Newest.Of(key.Channel)
	ch := ChannelStatus{Channel: key.Channel, Target: target, Wants: want.Number, Holds: h.Number, Since: h.Since, Verified: h.Verified, State: "behind"}
	switch {
	case run != nil && run.Finished.IsZero():
		ch.State = Running
	case h.Number == 0 && run == nil:
		ch.State = stateNever
	case h.Number == want.Number && h.Release == want.Digest && v.o.Incidents.Has(kinds.Discrepancy, key.Channel, key.Address):
		ch.State = different
	case h.Number == want.Number && h.Release == want.Digest && h.Verified.Equal(h.Attested):
		ch.State = Current
	case h.Number > 0 && h.Number == want.Number && h.Release == want.Digest:
		ch.State = unproven
	}
	if run != nil {
		ch.Run, ch.LastEnd, ch.LastWhy, ch.lastAt = run.ID.String(), string(run.State), run.Cause, run.Finished
		ch.failed = run.Number == want.Number && (run.State.LostTarget() || slices.Contains([]runs.State{runs.Failed, runs.Incomplete, runs.Unowned, runs.Missed}, run.State))
		if p, ok := moving[key.Channel]; ok && p.Run == run.ID {
			ch.Progress = &p.Progress
		}
	}
	return ch
}

// unproven is the state of content that was never proven, or whose last proof is no longer valid.
const unproven = "unproven"

// standingFindings returns the last run of each site and channel that found a difference, or could not bring or check
// some files, unless a later run proved the content.
func (v *Service) standingFindings(ctx context.Context, f ledger.Filter) (map[Row]ledger.Finding, error) {
	list, err := v.o.Proofs.Findings(ctx, f, runs.Different, runs.Incomplete, runs.Unowned)
	for i := range list {
		if x := &list[i]; x.State == runs.Incomplete && x.Cause == "" {
			x.Cause = "the last run could not bring or check some files"
		}
	}
	return findingsBySite(list), err
}

func findingsBySite(list []ledger.Finding) map[Row]ledger.Finding {
	out := make(map[Row]ledger.Finding, len(list))
	for _, f := range list {
		out[Row{wire.Address{Domain: f.Domain, Site: f.Site}, f.Channel}] = f
	}
	return out
}

func (v *Service) Holdings(ctx context.Context, f ledger.Filter) (map[Row]ledger.Holding, error) {
	list, err := v.o.Proofs.Holdings(ctx, f)
	out := make(map[Row]ledger.Holding, len(list))
	for _, h := range list {
		a := wire.Address{Domain: h.Domain, Site: h.Site}
		if x, _ := v.o.Sites.Site(a); x.isContested() {
			h.Verified = time.Time{}
		}
		if !h.Lacks.IsZero() {
			h = ledger.Holding{Domain: h.Domain, Site: h.Site, Channel: h.Channel}
		}
		out[Row{a, h.Channel}] = h
	}
	return out, err
}

// lostTargets returns the runs that found no target, and that no later run refutes. A site's earlier attestation proves
// nothing about such a target. They count even if an operator has closed the incident.
func (v *Service) lostTargets(ctx context.Context, f ledger.Filter) (map[Row]ledger.Finding, error) {
	seen := slices.DeleteFunc(runs.All(), func(s runs.State) bool { return !s.Accounted() && !s.LostTarget() })
	list, err := v.o.Proofs.Findings(ctx, f, seen...)
	list = slices.DeleteFunc(list, func(x ledger.Finding) bool { return !x.State.LostTarget() })
	return findingsBySite(list), err
}

// lastProof names the date of a site's last proof, which no longer holds.
func lastProof(h *ledger.Holding) string {
	if h.Verified.IsZero() {
		return ""
	}
	return "; last proven " + h.Verified.UTC().Format("2006-01-02 15:04Z")
}
