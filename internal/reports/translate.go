package reports

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/measure"
	"nightferry/internal/releases"
	"nightferry/internal/runs"
	"nightferry/internal/text"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// translator converts a site's reports to ledger events.
type translator struct {
	by    *Service
	ctx   context.Context //nolint:containedctx // lives for one message
	at    wire.Address
	key   trust.Public
	about map[ledger.RunID]releases.Key // the release of each run
	find  *releases.Finder

	started []Started

	exceptions map[outcomeOfRun][]ledger.Exception  // see noteException
	ended      []endedRun                           // in order
	parts      map[string]bool                      // of the site in incidents, by key: whether the batch leaves it open
	parents    map[ledger.RunID]trust.ReleaseNumber // the release held before each run, except dry runs
	problems   []reportedProblem
	outcomes   int64
}

type endedRun struct {
	Started
	state runs.State
}

// openIncident adds an incident to the transaction that commits an event.
func (t *translator) openIncident(e *ledger.Event, kind kinds.Kind, what, text string) {
	key := kinds.KeyOf(kind, what)
	e.Incidents = append(e.Incidents, ledger.IncidentReport{Key: key, Kind: string(kind), Text: clipText(text), Domain: t.at.Domain, Site: t.at.Site})
	t.noteIncident(key, true)
}

// endIncident closes the site's part of an incident in the transaction that commits an event, so that both
// are stored or neither.
func (t *translator) endIncident(e *ledger.Event, kind kinds.Kind, what string) {
	key := kinds.KeyOf(kind, what)
	e.Ended = append(e.Ended, key)
	t.noteIncident(key, false)
}

func (t *translator) noteIncident(key string, open bool) {
	if t.parts == nil {
		t.parts = map[string]bool{}
	}
	t.parts[key] = open
}

// reportedProblem is a site's report of one problem.
type reportedProblem struct {
	kind    kinds.Kind
	channel string
}

// translateEvent never fails. If an event is invalid, or its handling panics, it is kept as it is and opens
// an incident, so that the site's queue continues.
func (t *translator) translateEvent(e *wire.Event) (out ledger.Event) {
	defer func() {
		if p := recover(); p != nil {
			out.Start, out.Exceptions, out.Finish, out.Incidents = nil, nil, nil, nil
			t.by.o.Notices.ReportFailure("message", fmt.Errorf("an event of kind %d of site %s: a fault of the Core: %v at %s", e.Kind, t.at, p, t.by.o.PanicSite()))
		}
	}()
	out = ledger.Event{Kind: uint8(e.Kind), At: t.by.o.Calendar(time.UnixMilli(e.At).UTC()), Body: e.Body}
	if len(e.Run) == len(out.Run) && wire.ValidName(e.Channel) {
		out.Run, out.Channel = ledger.RunID(e.Run), e.Channel
	}
	if y := out.At.Year(); y < 1970 || y > 9999 { // such a year cannot be part of a log folder's name
		out.At = t.by.o.Wall()
	}
	var err error
	switch e.Kind {
	case wire.StartedEvent:
		err = t.translateStart(&out)
	case wire.OutcomesEvent:
		err = t.translateFiles(&out)
	case wire.FinishedEvent:
		err = t.translateFinish(&out)
	case wire.ProblemEvent:
		err = t.translateProblem(&out, e.Channel)
	default:
		err = fmt.Errorf("event kind %d is none that this Core knows", e.Kind)
	}
	if err == nil && out.Run.IsZero() && e.Kind != wire.ProblemEvent {
		err = errors.New("an event of a run that names no run")
	}
	if err != nil {
		t.by.o.Incidents.Raise(kinds.Malformed, "", t.at, fmt.Sprintf("site %s reported something that makes no sense: %v", t.at.Site, err))
	}
	return out
}

func (t *translator) translateStart(e *ledger.Event) error {
	var v wire.Started
	if err := wire.Decode(e.Body, &v); err != nil {
		return err
	}
	s := &ledger.Start{Number: v.Number, Release: v.Release, Parent: v.Parent, Trigger: "desired", DryRun: v.DryRun}
	if v.Start > 0 {
		s.Trigger = "sync"
	}
	if v.Trigger == "scrub" || v.Trigger == "verify" {
		s.Trigger = v.Trigger
	}
	if rel, err := t.by.o.Published.Release(t.ctx, e.Channel, v.Number); err == nil && rel.Digest == v.Release {
		s.Tree = rel.Tree
	}
	e.Start = s
	t.about[e.Run] = releases.Key{Channel: e.Channel, Number: v.Number, Digest: v.Release}
	if t.parents == nil {
		t.parents = map[ledger.RunID]trust.ReleaseNumber{}
	}
	t.parents[e.Run] = v.Parent
	if v.DryRun {
		t.parents[e.Run] = 0
	}
	t.started = append(t.started, Started{e.Run, e.Channel})
	return nil
}

func (t *translator) translateFiles(e *ledger.Event) error {
	all, err := wire.DecodeOutcomes(e.Body)
	if err != nil {
		return err
	}
	t.outcomes += int64(len(all))
	for _, o := range all {
		if !o.Outcome.Exception() {
			continue
		}
		x := ledger.Exception{Path: wire.Text(o.Path), Outcome: o.Outcome, Cause: clipText(wire.Text(o.Cause))}
		if o.Path == "" {
			x.Path = fmt.Sprintf("entry %d of the release", o.Ordinal)
			if entry, err := t.find.Entry(t.ctx, t.runRelease(e.Run), o.Ordinal); err == nil {
				x.Path, x.Size = entry.Path, entry.Size
			}
		}
		e.Exceptions = append(e.Exceptions, x)
		t.noteException(e.Run, x)
	}
	return nil
}

// runRelease returns the release that a run is about.
func (t *translator) runRelease(id ledger.RunID) releases.Key {
	k, ok := t.about[id]
	if !ok {
		if r, err := t.by.o.Ledger.Run(t.ctx, id); err == nil && r.Domain == t.at.Domain && r.Site == t.at.Site {
			k = releases.Key{Channel: r.Channel, Number: r.Number, Digest: r.Release}
		}
		t.about[id] = k
	}
	return k
}

func (t *translator) translateFinish(e *ledger.Event) error {
	var v wire.Finished
	if err := wire.Decode(e.Body, &v); err != nil {
		e.Finish = &ledger.Finish{State: runs.Failed, Cause: "the site's closing word makes no sense"}
		t.openFailing(e, e.Finish)
		return err
	}
	f := &ledger.Finish{State: v.Verdict, Cause: text.Bound(v.Error, MaxRunText), Totals: v.Totals}
	if !f.State.Valid() {
		f.State = runs.Failed
	}
	if v.Filled.Target != "" {
		f.Filled = &ledger.Fill{Target: v.Filled.Target, Volume: v.Filled.Volume, Machine: v.Filled.Machine}
	}
	e.Finish = f
	t.openDiscrepancy(e, &v)
	defer func() {
		t.noteTarget(e, f)
		t.openFailing(e, f)
		t.ended = append(t.ended, endedRun{Started{e.Run, e.Channel}, f.State})
		if !f.State.Accounted() {
			f.Totals.Unchanged = 0 // files compared before the run stopped; their names are unknown
		}
	}()
	if len(v.Attestation) == 0 {
		if f.State == runs.Verified {
			f.State, f.Cause = runs.Failed, "the site says that it is verified, and attests nothing"
			t.by.o.Incidents.Raise(kinds.BadProof, e.Channel, t.at, fmt.Sprintf("site %s, channel %s: %s", t.at.Site, e.Channel, f.Cause))
		}
		return nil
	}
	if t.by.o.Contested(t.at) { // the incident about its identity is open already
		f.State, f.Cause = runs.Failed, "the attestation does not count: two machines use the identity of the site"
		return nil
	}
	at, err := t.checkAttestation(e, &v)
	if err != nil {
		f.State, f.Cause = runs.Failed, "the attestation is refused: "+err.Error()
		t.by.o.Incidents.Raise(kinds.BadProof, e.Channel, t.at, fmt.Sprintf("site %s, channel %s: %s", t.at.Site, e.Channel, f.Cause))
		t.by.o.Notices.RefusedAttestation(t.ctx, t.at, clipText(f.Cause))
		return nil
	}
	f.Attestation = at
	t.endIncident(e, kinds.BadProof, e.Channel)
	return nil
}

// checkAttestation checks a site's statement. The nonce must be one that the Core issued to this site
// for this release. The tree and the counts must match the published release and the Core's own
// measurement of its source.
func (t *translator) checkAttestation(e *ledger.Event, v *wire.Finished) (*ledger.Attestation, error) {
	at, number, err := wire.OpenAttestation(v.Attestation, t.by.o.Repo(), t.at, t.key)
	if err != nil {
		return nil, err
	}
	if at.Channel != e.Channel {
		return nil, fmt.Errorf("it is about channel %q", clipText(at.Channel))
	}
	rel, err := t.by.o.Published.Release(t.ctx, at.Channel, number)
	if err != nil {
		return nil, fmt.Errorf("release %d: %w", number, err)
	}
	if rel.Digest != at.Release {
		return nil, fmt.Errorf("release %d is %s, it says %s", number, rel.Digest.Short(), at.Release.Short())
	}
	if !t.by.o.GaveNonce(t.at, at.Channel, number, at.Nonce) {
		return nil, errors.New("its nonce is none that the Core gave this site for this release")
	}
	if rel.Tree != at.Tree {
		return nil, fmt.Errorf("the tree is %s, release %d has %s", at.Tree.Short(), number, rel.Tree.Short())
	}
	if rel.Files != at.Files || rel.Bytes != at.Bytes {
		return nil, fmt.Errorf("it counts %d files, %d bytes, release %d has %d, %d", at.Files, at.Bytes, number, rel.Files, rel.Bytes)
	}
	m, err := measure.Known(t.ctx, t.by.o.Measured, at.Channel, number)
	if err != nil {
		return nil, err
	}
	if err := measure.Contradicts(m, &ledger.Holding{Number: number, Release: at.Release, Tree: at.Tree, Files: at.Files, Bytes: at.Bytes}); err != nil {
		return nil, err
	}
	return &ledger.Attestation{
		At: t.by.o.Calendar(time.Unix(at.At, 0).UTC()), Nonce: [16]byte(at.Nonce), Number: number, Release: at.Release, Tree: at.Tree,
		Files: at.Files, Bytes: at.Bytes, Read: at.ReadFiles, Statted: at.StatedFiles, OldestRead: t.by.o.Calendar(time.Unix(at.OldestRead, 0).UTC()),
		Verified: v.Verdict == runs.Verified, Signed: v.Attestation,
	}, nil
}

// translateProblem opens or closes an incident for each kind and channel.
func (t *translator) translateProblem(e *ledger.Event, channel string) error {
	var v wire.Problem
	if err := wire.Decode(e.Body, &v); err != nil {
		return err
	}
	if s := t.by.o.Fleet().Site(t.at.Site); channel != "" && (s == nil || s.Placement(channel) == nil) {
		return fmt.Errorf("a problem of a channel that this site does not have: %.64q", channel)
	}
	kind := kinds.SiteSays + "-" + kinds.Kind(v.Kind)
	t.problems = append(t.problems, reportedProblem{kind: kind, channel: channel})
	if v.Resolved {
		t.endIncident(e, kind, channel)
	} else {
		t.openIncident(e, kind, channel, v.Text)
	}
	return nil
}
