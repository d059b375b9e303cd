package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

// openFailing opens an incident when a run and the run before it ended failed or incomplete. A verified run
// with an attestation ends that incident and a discrepancy of the channel; other results end neither.
func (t *translator) openFailing(e *ledger.Event, f *ledger.Finish) {
	switch {
	case f.State == runs.Verified && f.Attestation != nil:
		t.endIncident(e, kinds.RunFails, e.Channel)
		t.endIncident(e, kinds.Discrepancy, e.Channel)
	case t.by.o.Contested(t.at): // its incident says that no run counts
	case hasFailed(f.State) && hasFailed(t.stateBefore(e)):
		cause := f.Cause
		if cause == "" {
			cause = t.filesCause(e, f.Totals.Counts)
		}
		t.openIncident(e, kinds.RunFails, e.Channel, fmt.Sprintf("site %s, channel %s: two runs in a row ended %s, the last is %s: %s", t.at.Site, e.Channel, f.State, e.Run.String()[:8], cause))
	}
}

// noteTarget opens and closes the incidents about the target itself. A run that ended Accounted, or lost the target in
// another way, closes them; a stopped or failed run may not have read the target.
func (t *translator) noteTarget(e *ledger.Event, f *ledger.Finish) {
	for _, state := range runs.NoTarget() {
		kind := kinds.Target + "-" + kinds.Kind(state)
		switch {
		case f.State == state:
			t.openIncident(e, kind, e.Channel, fmt.Sprintf("site %s, channel %s: %s", t.at.Site, e.Channel, f.Cause))
		case f.State.Accounted() || f.State.LostTarget():
			t.endIncident(e, kind, e.Channel)
		}
	}
}

// filesCause is the cause of a run that did not end with an error, but left files as they were. It names one file for
// each cause that has a remedy of its own.
func (t *translator) filesCause(e *ledger.Event, c runs.Counts) string {
	var list []string
	for _, x := range []struct {
		files     int64
		outcome   runs.Outcome
		one, more string
	}{
		{c.Failed, runs.FileFailed, "1 file failed", "%d files failed"},
		{c.Locked, runs.FileLocked, "1 file is locked by another program", "%d files are locked by other programs"},
	} {
		if x.files == 0 {
			continue
		}
		text := x.one
		if x.files > 1 {
			text = fmt.Sprintf(x.more, x.files)
		}
		if s := t.by.o.Fleet().Site(t.at.Site); s != nil && s.Placement(e.Channel) != nil {
			text += fmt.Sprintf(" in %q", s.Placement(e.Channel).Target)
		}
		remedies := map[string]bool{}
		var named []string
		for _, f := range t.exceptionsOf(e, x.files, x.outcome) {
			if remedy := kinds.Remedy(kinds.RunFails, f.Cause); !remedies[remedy] {
				remedies[remedy] = true
				named = append(named, nameException(f))
			}
		}
		if len(named) > 0 {
			text += ": " + strings.Join(named, "; ")
		}
		list = append(list, text)
	}
	return cmp.Or(strings.Join(list, "; "), "the site named no cause")
}

func hasFailed(s runs.State) bool {
	return s == runs.Failed || s == runs.Incomplete || s == runs.Unowned
}

// stateBefore returns the final state of the site's previous run of a channel.
func (t *translator) stateBefore(e *ledger.Event) runs.State {
	for _, r := range slices.Backward(t.ended) {
		if r.Channel == e.Channel && r.Run != e.Run {
			return r.state
		}
	}
	list, err := t.by.o.Ledger.Runs(t.ctx, ledger.RunFilter{Domain: t.at.Domain, Site: t.at.Site, Channel: e.Channel, Limit: 5})
	if err != nil {
		return ""
	}
	for _, r := range list {
		if r.ID != e.Run && !r.Finished.IsZero() && !r.DryRun {
			return r.State
		}
	}
	return ""
}
