package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/measure"
	"nightferry/internal/releases"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

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
		return nil, fmt.Errorf("%q is a folder of %q: name a file in it%s: %w", name, channel, v.completions(ctx, releases.Key{Channel: channel, Number: rel.Number, Digest: rel.Digest}, name+"/"), fs.ErrNotExist)
	}
	doubts, err := v.findDoubts(ctx, channel, name)
	if err != nil {
		return nil, err
	}
	waits, err := v.waitsOf(ctx, channel)
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
		p.Waiting = waits[key]
		out = append(out, p)
	}
	if !anywhere {
		return nil, &fleet.UnknownError{What: "file of channel " + channel, Name: name, Hint: v.similarPath(ctx, releases.Key{Channel: channel, Number: rel.Number, Digest: rel.Digest}, name)}
	}
	slices.SortStableFunc(out, func(a, b Place) int { return strings.Compare(a.Site, b.Site) })
	return out, nil
}

// waitsOf returns why sites wait with a channel.
func (v *Service) waitsOf(ctx context.Context, channel string) (map[Row]*Waiting, error) {
	sites, err := v.Sites(ctx, fleet.Scope{Channel: channel})
	out := map[Row]*Waiting{}
	for i := range sites {
		for _, ch := range sites[i].Channels {
			if ch.Channel == channel {
				out[Row{wire.Address{Domain: sites[i].Domain, Site: sites[i].Site}, channel}] = ch.Waiting
			}
		}
	}
	return out, err
}

// completions lists the paths of a release that begin with prefix, after a comma; empty: none does.
func (v *Service) completions(ctx context.Context, k releases.Key, prefix string) string {
	const shown = 10
	list, err := v.o.Releases.Completions(ctx, k, prefix, shown+1)
	if err != nil || len(list) == 0 {
		return ""
	}
	text := ", such as "
	for i, p := range list {
		switch {
		case i == shown:
			return text + " and others"
		case i > 0:
			text += ", "
		}
		text += strconv.Quote(p)
	}
	return text
}

// similarPath suggests the paths of a release that begin with name, else the one that is most similar to it. A release
// that cannot be read within some seconds suggests none.
func (v *Service) similarPath(ctx context.Context, k releases.Key, name string) string {
	if begin := v.completions(ctx, k, name); begin != "" {
		return "name one that begins so" + begin
	}
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
	if x, _ := d.sites.Site(key.Address); x.isContested() {
		p.State, p.Current, p.Verified, p.Cause = stateContested, false, time.Time{}, x.Identity.Contest
		return
	}
	if f, ok := d.lost[key]; ok && p.Release > 0 {
		f.Cause += lastProof(h)
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
	case f.Outcome == runs.FileDiffers && strings.HasPrefix(f.Cause, "missing"):
		p.State, p.Present = "missing", false
	case f.Outcome == runs.FileDiffers:
		p.State = "differs"
	default: // failed, locked, repaired by a run that did not end verified, or about a whole channel
		p.State = unproven
	}
	p.Verified = time.Time{} // it belongs to the release; the file's own proof is refuted
}
