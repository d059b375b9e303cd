package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"nightferry/internal/desired"
	"nightferry/internal/fleet"
	"nightferry/internal/halting"
	"nightferry/internal/incident"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/measure"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/reports"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// Query answers questions about the fleet. It reads, and changes nothing but its
// caches. It is safe for concurrent use.
type Query struct {
	o        *Options
	settings *atomic.Pointer[Settings]
	ledger   *ledger.Ledger
	logs     *record.Logs
	storage  *storage
	fleet    *sites
	newest   *newest
	desired  *desired.Service
	halting  *halting.Service
	alarms   *incident.Service
	releases *releases.Reader
	log      runLog
	clock    *clocks
	looked   *looked
}

// runLog names what a run did with each file. *reports.Renderer is one.
type runLog interface {
	Header(ctx context.Context, run *ledger.Run) record.Header
	Lines(ctx context.Context, run *ledger.Run, all bool, fn func(record.File) error) error
}

// Status returns the fleet's current figures.
func (v *Query) Status(ctx context.Context) (*Status, error) {
	sites, err := v.Sites(ctx, fleet.Scope{})
	if err != nil {
		return nil, err
	}
	shown, _, _ := strings.Cut(v.o.StoreURL, "?")
	s := &Status{At: v.clock.now(), Version: v.o.Version, Repo: v.storage.repo.Load().ID().String(), Store: shown, Sites: len(sites), Channels: v.newest.list()}
	s.Rehearsal = v.clock.rehearsal()
	s.StoreRead, s.Unread = v.looked.last()
	if s.Revision, err = v.ledger.Revision(ctx); err != nil {
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
			current = current && ch.State == stateCurrent
		}
		if current {
			s.Current++
		}
	}
	s.Measured = []ledger.Measurement{}
	for _, rel := range s.Channels {
		m, err := measure.Known(ctx, v.ledger, rel.Channel, rel.Number)
		if err != nil {
			return nil, err
		}
		if m != nil && m.Release == rel.Digest {
			s.Measured = append(s.Measured, *m)
		}
	}
	open, err := v.ledger.Runs(ctx, ledger.RunFilter{Open: true})
	if err != nil {
		return nil, err
	}
	s.Running = len(open)
	incidents, err := v.ledger.Incidents(ctx, false)
	if err != nil {
		return nil, err
	}
	s.Incidents = len(incidents)
	s.Halts = len(v.halting.Current().Orders.Active)
	v.fleet.each(func(_ wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.local != nil {
			s.Halts++
		}
	})
	return s, nil
}

// Sites lists the sites of a scope.
func (v *Query) Sites(ctx context.Context, scope fleet.Scope) ([]SiteStatus, error) {
	list, err := v.settings.Load().Fleet.Select(scope)
	if err != nil {
		return nil, err
	}
	held, err := v.holdings(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel})
	if err != nil {
		return nil, err
	}
	last, err := v.lastRuns(ctx, scope)
	if err != nil {
		return nil, err
	}
	found, err := v.standing(ctx, ledger.Filter{Domain: scope.Domain, Site: scope.Site, Channel: scope.Channel})
	if err != nil {
		return nil, err
	}
	measured := measure.Cache{Records: v.ledger}
	out := make([]SiteStatus, 0, len(list))
	for _, s := range list {
		a := wire.Address{Domain: s.Domain, Site: s.Name}
		x := v.fleet.get(a)
		x.mu.Lock()
		st := SiteStatus{Site: s.Name, Domain: s.Domain, Region: s.Region, Connected: v.fleet.heard(x), Seen: x.seen, Version: x.sighting.Version,
			ClockOffset: ledger.Seconds(x.sighting.ClockOffset), Spooled: x.sighting.Lag, Revision: x.sighting.Revision, Wanted: v.desired.Of(a).Revision}
		if x.identity != nil {
			st.Enrolled, st.JWTExpires, st.Contested = x.identity.Enrolled, x.identity.JWTExpires, x.identity.Contest
		}
		waits := x.waits
		moving := map[string]progress{}
		for ch, p := range x.progress {
			moving[ch] = p
		}
		x.mu.Unlock()
		for _, p := range s.Placements {
			key := rowKey{a, p.Channel}
			ch := v.channelStatus(key, p.Target, held[key], last[key], moving)
			h := held[key]
			if ch.Measured, err = measured.Of(ctx, &h); err != nil {
				return nil, err
			}
			f, differs := found[key]
			switch {
			case ch.State == "behind" || ch.State == stateNever && !st.Enrolled.IsZero() && v.orderFor(&s, p.Channel) != nil:
				ch.State = v.stateOf(&s, &st, &ch)
			case ch.State != stateCurrent:
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
			ch.Waiting = st.waiting(&ch, waits)
			var finding *ledger.Finding
			if differs {
				finding = &f
			}
			if ch.Reasons = v.reasons(&s, &st, &ch, finding); len(ch.Reasons) > 0 {
				ch.Why = ch.Reasons[0].What
			}
			st.Channels = append(st.Channels, ch)
		}
		out = append(out, st)
	}
	return out, nil
}

func (v *Query) channelStatus(key rowKey, target string, h ledger.Holding, run *ledger.Run, moving map[string]progress) ChannelStatus {
	want, _ := v.newest.of(key.channel)
	ch := ChannelStatus{Channel: key.channel, Target: target, Wants: want.Number, Holds: h.Number, Since: h.Since, Verified: h.Verified, State: "behind"}
	switch {
	case run != nil && run.Finished.IsZero():
		ch.State = stateRunning
	case h.Number == 0 && run == nil:
		ch.State = stateNever
	case h.Number == want.Number && h.Release == want.Digest && v.alarms.Has(Discrepancy, key.channel, key.Address):
		ch.State = different
	case h.Number == want.Number && h.Release == want.Digest && h.Verified.Equal(h.Attested):
		ch.State = stateCurrent
	case h.Number > 0 && h.Number == want.Number && h.Release == want.Digest:
		ch.State = unproven
	}
	if run != nil {
		ch.Run, ch.LastEnd, ch.LastWhy, ch.lastAt = run.ID.String(), string(run.State), run.Cause, run.Finished
		ch.failed = run.Number == want.Number && slices.Contains([]runs.State{runs.Failed, runs.Incomplete, runs.Refused, runs.Missed}, run.State)
		if p, ok := moving[key.channel]; ok && p.run == run.ID {
			ch.Progress = &p.Progress
		}
	}
	return ch
}

// unproven is the state of content that was never proven, or whose last proof is no longer valid.
const unproven = "unproven"

// standing returns the last run of each site and channel that found a difference, unless a later
// run proved the content.
func (v *Query) standing(ctx context.Context, f ledger.Filter) (map[rowKey]ledger.Finding, error) {
	list, err := v.ledger.Findings(ctx, runs.Different, f)
	return findingsBySite(list), err
}

func findingsBySite(list []ledger.Finding) map[rowKey]ledger.Finding {
	out := make(map[rowKey]ledger.Finding, len(list))
	for _, f := range list {
		out[rowKey{wire.Address{Domain: f.Domain, Site: f.Site}, f.Channel}] = f
	}
	return out
}

func (v *Query) holdings(ctx context.Context, f ledger.Filter) (map[rowKey]ledger.Holding, error) {
	list, err := v.ledger.Holdings(ctx, f)
	out := make(map[rowKey]ledger.Holding, len(list))
	for _, h := range list {
		a := wire.Address{Domain: h.Domain, Site: h.Site}
		if v.fleet.contested(a) {
			h.Verified = time.Time{}
		}
		out[rowKey{a, h.Channel}] = h
	}
	return out, err
}

// lastRuns returns the newest run of each site and channel among the latest runs.
func (v *Query) lastRuns(ctx context.Context, s fleet.Scope) (map[rowKey]*ledger.Run, error) {
	runs, err := v.ledger.Runs(ctx, ledger.RunFilter{Domain: s.Domain, Site: s.Site, Channel: s.Channel, Limit: 10_000})
	out := map[rowKey]*ledger.Run{}
	for i := range runs {
		key := rowKey{wire.Address{Domain: runs[i].Domain, Site: runs[i].Site}, runs[i].Channel}
		if out[key] == nil {
			out[key] = &runs[i]
		}
	}
	return out, err
}

// Runs lists runs, the newest first.
func (v *Query) Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	return v.ledger.Runs(ctx, f)
}

// RunShow calls begin with the run, then fn for each file, until one returns an error. id may be a
// unique prefix. With all, it includes every file of the release, in path order, with unchanged
// files taken from the manifest. Files that are not in the release come last.
func (v *Query) RunShow(ctx context.Context, id string, all bool, begin func(RunDetail) error, fn func(record.File) error) error {
	run, err := v.findRun(ctx, id)
	if err != nil {
		return err
	}
	d := RunDetail{Run: *run, Header: v.log.Header(ctx, run)}
	if !run.Rendered.IsZero() {
		d.Log = logPath(run)
	}
	measured := measure.Cache{Records: v.ledger}
	if d.Measured, err = measured.Of(ctx, &ledger.Holding{Channel: run.Channel, Number: run.Number, Release: run.Release}); err != nil {
		return err
	}
	if err := begin(d); err != nil {
		return err
	}
	sent := int64(0)
	if run.Rendered.IsZero() {
		err := v.log.Lines(ctx, run, all, func(f record.File) error { sent++; return fn(f) })
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
		_, _, err := v.logs.Scan(d.Log, rest)
		return err
	}
	return v.allLines(ctx, run, d.Log, rest)
}

func (v *Query) findRun(ctx context.Context, id string) (*ledger.Run, error) {
	found, err := v.ledger.FindRuns(ctx, id)
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
	p := reports.PlaceOf(run)
	if p.Domain == "" {
		return path.Join("core", p.Channel, p.Date.UTC().Format(time.DateOnly), p.Run+".jsonl")
	}
	return path.Join(p.Domain, p.Site, p.Channel, p.Date.UTC().Format(time.DateOnly), p.Run+".jsonl")
}

// allLines adds to a log's lines the files that the log does not name.
func (v *Query) allLines(ctx context.Context, run *ledger.Run, log string, fn func(record.File) error) error {
	told := map[string]record.File{}
	var order []string
	if _, _, err := v.logs.Scan(log, func(f record.File) error {
		told[f.Path] = f
		order = append(order, f.Path)
		return nil
	}); err != nil {
		return err
	}
	rel, err := v.ledger.Release(ctx, run.Channel, run.Number)
	if err != nil || rel.Digest != run.Release {
		return fmt.Errorf("run %s: its release %d is not in the ledger: only the log's lines can be shown", run.ID, run.Number)
	}
	_, next, err := v.releases.Entries(ctx, releases.Key{Channel: run.Channel, Number: run.Number, Digest: run.Release})
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
			f = reports.Untold(run, e)
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
func (v *Query) Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error {
	return v.logs.List(f, func(l record.Log) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(l)
	})
}

// Where returns, for each site that should have the channel, what the site holds at a path of it.
func (v *Query) Where(ctx context.Context, channel, name string) ([]Place, error) {
	list, err := v.settings.Load().Fleet.Select(fleet.Scope{Channel: channel})
	if err != nil {
		return nil, err
	}
	held, err := v.holdings(ctx, ledger.Filter{Channel: channel})
	if err != nil {
		return nil, err
	}
	found := map[releases.Key]*manifest.Entry{}
	find := func(k releases.Key) (*manifest.Entry, error) {
		if e, ok := found[k]; ok {
			return e, nil
		}
		e, err := v.releases.Find(ctx, k, name)
		if err == nil {
			found[k] = e
		}
		return e, err
	}
	rel, published := v.newest.of(channel)
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
	doubts, err := v.doubts(ctx, channel, name)
	if err != nil {
		return nil, err
	}
	anywhere := newest != nil
	measured := measure.Cache{Records: v.ledger}
	var out []Place
	for _, s := range list {
		key := rowKey{wire.Address{Domain: s.Domain, Site: s.Name}, channel}
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
			p.set(e, newest, &h)
		}
		doubts.apply(&p, key, &h)
		out = append(out, p)
	}
	if !anywhere {
		return nil, &fleet.UnknownError{What: "file of channel " + channel, Name: name, Hint: v.similar(ctx, releases.Key{Channel: channel, Number: rel.Number, Digest: rel.Digest}, name)}
	}
	slices.SortStableFunc(out, func(a, b Place) int { return strings.Compare(a.Site, b.Site) })
	return out, nil
}

// similar suggests the path of a release that is most similar to name. A release
// that cannot be read within some seconds suggests none.
func (v *Query) similar(ctx context.Context, k releases.Key, name string) string {
	const none = "no path of the newest release is similar"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, next, err := v.releases.Entries(ctx, k)
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

// set fills in the file's entry in the release that a site attested. e is nil if the release lacks
// the file.
func (p *Place) set(e, newest *manifest.Entry, h *ledger.Holding) {
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
	fleet *sites
	path  map[rowKey]ledger.Finding // about the file
	whole map[rowKey]ledger.Finding // about the channel, without naming all files
}

func (v *Query) doubts(ctx context.Context, channel, name string) (*doubts, error) {
	paths, err := v.ledger.FindingsOf(ctx, channel, name)
	if err != nil {
		return nil, err
	}
	whole, err := v.standing(ctx, ledger.Filter{Channel: channel})
	return &doubts{v.fleet, findingsBySite(paths), whole}, err
}

// apply withdraws claims that a finding refutes. Without a finding, it marks unproven claims as
// such.
func (d *doubts) apply(p *Place, key rowKey, h *ledger.Holding) {
	if f, ok := d.path[key]; ok {
		d.refute(p, &f)
		return
	}
	if f, ok := d.whole[key]; ok && f.Unnamed && p.Release > 0 {
		d.refute(p, &f)
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
	case d.fleet.enrolled(key.Address).IsZero():
		why = "the site is not enrolled, so nothing is known of it now"
	}
	if why != "" {
		p.State, p.Current, p.Cause = unproven, false, why
	}
}

// refute replaces the claim with a finding.
func (d *doubts) refute(p *Place, f *ledger.Finding) {
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
func (v *Query) Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error) {
	return v.ledger.Deeds(ctx, f)
}

// Incident is a problem with what to do about it.
type Incident struct {
	ledger.Incident
	Remedy string `json:"remedy"`
}

func withRemedy(i ledger.Incident) Incident {
	return Incident{i, kinds.Remedy(Kind(i.Kind), i.Text)}
}

// Incidents lists the open incidents, or all, the newest first. What a full
// ledger could not take is among them.
func (v *Query) Incidents(ctx context.Context, all bool) ([]Incident, error) {
	list, err := v.alarms.List(ctx, all)
	out := make([]Incident, 0, len(list))
	for _, i := range list {
		out = append(out, withRemedy(i))
	}
	return out, err
}
