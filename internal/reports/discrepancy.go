package reports

import (
	"fmt"
	"strings"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// openDiscrepancy opens an incident for a run that found differences at a site, even if the run
// repaired them. The incident opens in the transaction that commits the run's end.
func (t *translator) openDiscrepancy(e *ledger.Event, v *wire.Finished) {
	n := v.Repaired + v.Differs
	anew := t.countReplaced(e, v)
	if n+anew == 0 && v.Verdict != runs.Different {
		return
	}
	var said []string
	for _, x := range t.exceptionsOf(e, n, runs.FileRepaired, runs.FileDiffers) {
		said = append(said, nameException(x))
	}
	said = said[:min(len(said), pathsTold)]
	what := fmt.Sprintf("%d paths are", n)
	if n == 1 {
		what = "1 path is"
	}
	text := fmt.Sprintf("site %s, channel %s: %s not as release %d says", t.at.Site, e.Channel, what, t.runRelease(e.Run).Number)
	switch {
	case n+anew == 0:
		text = fmt.Sprintf("site %s, channel %s: %s", t.at.Site, e.Channel, clipText(v.Error))
	case n == 0:
		text = fmt.Sprintf("site %s, channel %s: the record of the applied release was gone, and %d files and folders of release %d were written again", t.at.Site, e.Channel, anew, t.runRelease(e.Run).Number)
	}
	if len(said) > 0 {
		text += ": " + strings.Join(said, "; ")
		if more := n - int64(len(said)); more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
	}
	switch v.Verdict {
	case runs.Verified:
		text += ". All were repaired, and are verified again"
	case runs.Different:
		text += fmt.Sprintf(". Nothing was repaired: nightferry verify --site %s --channel %s --repair", t.at.Site, e.Channel)
	default:
		text += ". The run did not end verified: the next one continues"
	}
	t.openIncident(e, kinds.Discrepancy, e.Channel, text)
}

// countReplaced counts files that a run placed again although they should have been there. An emptied folder
// has lost its record, too; if the run before has reported that, this one was ordered to fill it.
func (t *translator) countReplaced(e *ledger.Event, v *wire.Finished) int64 {
	parent, ok := t.parents[e.Run]
	if !ok {
		if r, err := t.by.o.Ledger.Run(t.ctx, e.Run); err == nil && !r.DryRun {
			parent = r.Parent
		}
	}
	if parent == 0 || parent != t.runRelease(e.Run).Number || t.stateBefore(e) == runs.Emptied {
		return 0
	}
	return v.Added + v.Changed
}
