package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/measure"
	"nightferry/internal/record"
	"nightferry/internal/releases"
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
		st := SiteStatus{Site: s.Name, Domain: s.Domain, Region: s.Region, Connected: x.Connected, Seen: x.Seen, Version: x.Sighting.Version,
			ClockOffset: ledger.Seconds(x.Sighting.ClockOffset), Spooled: x.Sighting.Lag, Revision: x.Sighting.Revision, Wanted: v.o.Wanted(a).Revision}
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
			h := held[key]
			if ch.Measured, err = measured.Of(ctx, &h); err != nil {
				return nil, err
			}
			f, differs := found[key]
			if x, ok := lost[key]; ok {
				ch.lost = &x
			}
			switch {
			case ch.State == "behind" || ch.State == stateNever && !st.Enrolled.IsZero() && v.OrderFor(&s, p.Channel) != nil:
				ch.State = v.stateOf(&s, &st, &ch)
			case ch.lost != nil && (ch.State == Current || ch.State == different):
				ch.State = unproven
			case ch.State != Current:
			case differs:
				ch.State = different
			case measure.Contradicts(ch.Measured, &h) != nil:
				ch.State = stateContradicted
			case st.Enrolled.IsZero():
				ch.State = unproven // a site without an identity sends no reports, so it no longer proves anything
			}
			if st.Contested != "" {
				ch.State = stateContested
			}
			if ch.lost != nil {
				ch.Verified = time.Time{} // the proof is of content that is not there now
			}
			ch.Waiting = st.waitingReason(&ch, x.Waits)
			var finding *ledger.Finding
			if differs {
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
// one, with who revoked it and why as the detail.
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
		ch.failed = run.Number == want.Number && slices.Contains([]runs.State{runs.Failed, runs.Incomplete, runs.Refused, runs.Emptied, runs.Missed}, run.State)
		if p, ok := moving[key.Channel]; ok && p.Run == run.ID {
			ch.Progress = &p.Progress
		}
	}
	return ch
}

// unproven is the state of content that was never proven, or whose last proof is no longer valid.
const unproven = "unproven"

// standingFindings returns the last run of each site and channel that found a difference, unless a later
// run proved the content.
func (v *Service) standingFindings(ctx context.Context, f ledger.Filter) (map[Row]ledger.Finding, error) {
	list, err := v.o.Proofs.Findings(ctx, f, runs.Different)
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
		out[Row{a, h.Channel}] = h
	}
	return out, err
}

// LastRuns returns the newest run of each site and channel among the latest runs.
func (v *Service) LastRuns(ctx context.Context, s fleet.Scope) (map[Row]*ledger.Run, error) {
	runs, err := v.o.Runs.Runs(ctx, ledger.RunFilter{Domain: s.Domain, Site: s.Site, Channel: s.Channel, Limit: 10_000})
	out := map[Row]*ledger.Run{}
	for i := range runs {
		key := Row{wire.Address{Domain: runs[i].Domain, Site: runs[i].Site}, runs[i].Channel}
		if out[key] == nil {
			out[key] = &runs[i]
		}
	}
	return out, err
}

// Runs lists runs, the newest first.
func (v *Service) Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	return v.o.Runs.Runs(ctx, f)
}

// RunShow calls begin with the run, then fn for each file, until one returns an error. id may be a
// unique prefix. With all, it includes every file of the release, in path order, with unchanged
// files taken from the manifest. Files that are not in the release come last.
func (v *Service) RunShow(ctx context.Context, id string, all bool, begin func(RunDetail) error, fn func(record.File) error) error {
	run, err := v.findRun(ctx, id)
	if err != nil {
		return err
	}
	d := RunDetail{Run: *run, Header: v.o.RunLog.Header(ctx, run)}
	if !run.Rendered.IsZero() {
		d.Log = logPath(run)
	}
	if rel, err := v.o.Runs.Release(ctx, run.Channel, run.Number); err == nil && rel.Digest == run.Release {
		d.Files, d.Bytes = rel.Files, rel.Bytes
	}
	if x, _ := v.o.Sites.Site(wire.Address{Domain: run.Domain, Site: run.Site}); run.Finished.IsZero() {
		if p, ok := x.Progress[run.Channel]; ok && p.Run == run.ID {
			d.Progress = &p.Progress
		}
	}
	measured := measure.Cache{Records: v.o.Measured}
	if d.Measured, err = measured.Of(ctx, &ledger.Holding{Channel: run.Channel, Number: run.Number, Release: run.Release}); err != nil {
		return err
	}
	if err := begin(d); err != nil {
		return err
	}
	sent := int64(0)
	if run.Rendered.IsZero() {
		err := v.o.RunLog.Lines(ctx, run, all, func(f record.File) error { sent++; return fn(f) })
		if !errors.Is(err, ledger.ErrRendered) {
			return err
		}
		// The log was written in the meantime, with the same lines in the same order.
		if run, err = v.findRun(ctx, run.ID.String()); err != nil {
			return err
		}
		d.Log = logPath(run)
	}
	rest := func(f record.File) error {
		if sent > 0 {
			sent--
			return nil
		}
		return fn(f)
	}
	if !all || run.Site == "" {
		_, _, err := v.o.Logs.Scan(d.Log, rest)
		return err
	}
	return v.allLines(ctx, run, d.Log, rest)
}

func (v *Service) findRun(ctx context.Context, id string) (*ledger.Run, error) {
	found, err := v.o.Runs.FindRuns(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("run %q: %w", id, ledger.ErrNotFound)
	case len(found) > 1:
		return nil, fmt.Errorf("run %q: %d runs or more begin so: give more digits", id, len(found))
	}
	return &found[0], nil
}

func logPath(run *ledger.Run) string {
	date, name := run.Started.UTC().Format(time.DateOnly), run.ID.String()+".jsonl"
	if run.Domain == "" {
		return path.Join("core", run.Channel, date, name)
	}
	return path.Join(run.Domain, run.Site, run.Channel, date, name)
}

// allLines adds to a log's lines the files that the log does not name.
func (v *Service) allLines(ctx context.Context, run *ledger.Run, log string, fn func(record.File) error) error {
	told := map[string]record.File{}
	var order []string
	if _, _, err := v.o.Logs.Scan(log, func(f record.File) error {
		told[f.Path] = f
		order = append(order, f.Path)
		return nil
	}); err != nil {
		return err
	}
	rel, err := v.o.Runs.Release(ctx, run.Channel, run.Number)
	if err != nil || rel.Digest != run.Release {
		return fmt.Errorf("run %s: its release %d is not in the ledger: only the log's lines can be shown", run.ID, run.Number)
	}
	_, next, err := v.o.Releases.Entries(ctx, releases.Key{Channel: run.Channel, Number: run.Number, Digest: run.Release})
	if err != nil {
		return err
	}
	for {
		e, err := next()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		f, ok := told[e.Path]
		if ok {
			delete(told, e.Path)
		} else {
			f = v.o.RunLog.Untold(run, e)
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	for _, p := range order {
		if f, ok := told[p]; ok {
			if err := fn(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Logs lists log files. Paths are relative to LogsDir.
func (v *Service) Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error {
	return v.o.Logs.List(f, func(l record.Log) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(l)
	})
}

// FailingFiles lists the files of a scope that failed, were locked or were
// repaired, the newest report first, at most limit of them.
func (v *Service) FailingFiles(ctx context.Context, scope fleet.Scope, limit int) ([]ledger.Exception, error) {
	sites, err := v.o.World().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	most := limit
	if scope.Region != "" {
		most = math.MaxInt32 // the ledger knows no regions
	}
	list, err := v.o.Records.Exceptions(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel, Limit: most})
	if scope.Region != "" {
		list = slices.DeleteFunc(list, func(e ledger.Exception) bool {
			return !slices.ContainsFunc(sites, func(s fleet.Site) bool { return s.Name == e.Site && s.Domain == e.Domain })
		})
	}
	return list[:min(len(list), limit)], err
}

// Where returns, for each site that should have the channel, what the site holds at a path of it.
func (v *Service) Where(ctx context.Context, channel, name string) ([]Place, error) {
	list, err := v.o.World().Fleet.Select(fleet.Scope{Channel: channel})
	if err != nil {
		return nil, err
	}
	held, err := v.Holdings(ctx, ledger.Filter{Channel: channel})
	if err != nil {
		return nil, err
	}
	found := map[releases.Key]*manifest.Entry{}
	find := func(k releases.Key) (*manifest.Entry, error) {
		if e, ok := found[k]; ok {
			return e, nil
		}
		e, err := v.o.Releases.Find(ctx, k, name)
		if err == nil {
			found[k] = e
		}
		return e, err
	}
	rel, published := v.o.Newest.Of(channel)
	if !published {
		return nil, fmt.Errorf("channel %q has no release yet: %w", channel, ledger.ErrNotFound)
	}
	newest, err := find(releases.Key{Channel: channel, Number: rel.Number, Digest: rel.Digest})
	if err != nil {
		return nil, err
	}
	if newest != nil && newest.Kind == manifest.Dir {
		return nil, fmt.Errorf("%q is a folder of %q: name a file in it: %w", name, channel, fs.ErrNotExist)
	}
	doubts, err := v.findDoubts(ctx, channel, name)
	if err != nil {
		return nil, err
	}
	anywhere := newest != nil
	measured := measure.Cache{Records: v.o.Measured}
	var out []Place
	for _, s := range list {
		key := Row{wire.Address{Domain: s.Domain, Site: s.Name}, channel}
		h := held[key]
		p := Place{Domain: s.Domain, Site: s.Name, Release: h.Number, State: "nothing yet"}
		if p.Measured, err = measured.Of(ctx, &h); err != nil {
			return nil, err
		}
		if h.Number > 0 {
			e, err := find(releases.Key{Channel: channel, Number: h.Number, Digest: h.Release})
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // gc may have removed it
				return nil, err
			}
			anywhere = anywhere || e != nil
			p.setEntry(e, newest, &h)
		}
		doubts.applyTo(&p, key, &h)
		out = append(out, p)
	}
	if !anywhere {
		return nil, &fleet.UnknownError{What: "file of channel " + channel, Name: name, Hint: v.similarPath(ctx, releases.Key{Channel: channel, Number: rel.Number, Digest: rel.Digest}, name)}
	}
	slices.SortStableFunc(out, func(a, b Place) int { return strings.Compare(a.Site, b.Site) })
	return out, nil
}

// similarPath suggests the path of a release that is most similar to name. A release
// that cannot be read within some seconds suggests none.
func (v *Service) similarPath(ctx context.Context, k releases.Key, name string) string {
	const none = "no path of the newest release is similar"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, next, err := v.o.Releases.Entries(ctx, k)
	if err != nil {
		return none
	}
	near := fleet.NewNearest(name)
	for {
		e, err := next()
		if err != nil || e == nil || ctx.Err() != nil {
			return cmp.Or(near.Suggestion(), none)
		}
		if e.Kind == manifest.File {
			near.Add(e.Path)
		}
	}
}

// setEntry fills in the file's entry in the release that a site attested. e is nil if the release lacks
// the file.
func (p *Place) setEntry(e, newest *manifest.Entry, h *ledger.Holding) {
	p.State, p.Since, p.Verified = "absent", h.Since, h.Verified
	if e == nil {
		return
	}
	p.State, p.Present, p.Size, p.Digest = "older", true, e.Size, e.Digest
	if newest != nil && e.Digest == newest.Digest {
		p.State, p.Current = "current", true
	}
}

// doubts holds findings that contradict the sites' attestations.
type doubts struct {
	sites Sites
	path  map[Row]ledger.Finding // about the file
	whole map[Row]ledger.Finding // about the channel, without naming all files
	lost  map[Row]ledger.Finding // their targets
}

func (v *Service) findDoubts(ctx context.Context, channel, name string) (*doubts, error) {
	paths, err := v.o.Proofs.FindingsOf(ctx, channel, name)
	if err != nil {
		return nil, err
	}
	whole, err := v.standingFindings(ctx, ledger.Filter{Channel: channel})
	if err != nil {
		return nil, err
	}
	lost, err := v.lostTargets(ctx, ledger.Filter{Channel: channel})
	return &doubts{v.o.Sites, findingsBySite(paths), whole, lost}, err
}

// applyTo withdraws claims that a finding refutes. Without a finding, it marks unproven claims as
// such.
func (d *doubts) applyTo(p *Place, key Row, h *ledger.Holding) {
	if f, ok := d.lost[key]; ok && p.Release > 0 {
		d.refuteClaim(p, &f)
		return
	}
	if f, ok := d.path[key]; ok {
		d.refuteClaim(p, &f)
		return
	}
	if f, ok := d.whole[key]; ok && f.Unnamed && p.Release > 0 {
		d.refuteClaim(p, &f)
		return
	}
	if p.Release == 0 {
		return
	}
	why := ""
	switch {
	case !h.Verified.Equal(h.Attested):
		why = "the site's last run did not prove all of the release"
	case measure.Contradicts(p.Measured, h) != nil:
		why = measure.Contradicts(p.Measured, h).Error()
	case !isEnrolled(d.sites, key.Address):
		why = "the site is not enrolled, so nothing is known of it now"
	}
	if why != "" {
		p.State, p.Current, p.Cause = unproven, false, why
	}
}

// refuteClaim replaces the claim with a finding.
func (d *doubts) refuteClaim(p *Place, f *ledger.Finding) {
	p.Current, p.Found, p.Cause, p.Run = false, f.At, f.Cause, f.Run.String()
	switch {
	case f.Outcome == wire.Differs.String() && strings.HasPrefix(f.Cause, "missing"):
		p.State, p.Present = "missing", false
	case f.Outcome == wire.Differs.String():
		p.State = "differs"
	default: // failed, locked, repaired by a run that did not end verified, or about a whole channel
		p.State = unproven
	}
	p.Verified = time.Time{} // it belongs to the release; the file's own proof is refuted
}

// Deeds lists audit entries.
func (v *Service) Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error) {
	return v.o.Records.Deeds(ctx, f)
}

// Incident is a problem with what to do about it.
type Incident struct {
	ledger.Incident
	Remedy string `json:"remedy"`
}

// WithRemedy adds the remedy of an incident's kind.
func WithRemedy(i ledger.Incident) Incident {
	return Incident{i, kinds.Remedy(kinds.Kind(i.Kind), i.Text)}
}

// Incidents lists the open incidents, or all, the newest first. What a full
// ledger could not take is among them.
func (v *Service) Incidents(ctx context.Context, all bool) ([]Incident, error) {
	list, err := v.o.Incidents.List(ctx, all)
	out := make([]Incident, 0, len(list))
	for _, i := range list {
		out = append(out, WithRemedy(i))
	}
	return out, err
}
