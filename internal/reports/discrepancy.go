package reports

import (
	"fmt"
	"slices"
	"strings"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/wire"
)

// pathsTold is how many paths an incident names; the run's log has all of them.
const pathsTold = 20

// openDiscrepancy opens an incident for a run that found differences at a site, even if the run
// repaired them. The incident opens in the transaction that commits the run's end.
func (t *translator) openDiscrepancy(e *ledger.Event, v *wire.Finished) {
	n := v.Repaired + v.Differs
	anew := t.countReplaced(e, v)
	if n+anew == 0 && v.Verdict != runs.Different {
		return
	}
	said := slices.Clone(t.differing[e.Run])
	if int64(len(said)) < min(n, pathsTold) {
		// An earlier message of the run has named them.
		old, err := t.by.o.Ledger.Exceptions(t.ctx, ledger.Filter{Domain: t.at.Domain, Site: t.at.Site, Channel: e.Channel, Run: e.Run, Limit: 10 * pathsTold})
		if err == nil {
			for _, x := range old {
				if x.Outcome == wire.Repaired.String() || x.Outcome == wire.Differs.String() {
					said = append(said, nameException(x))
				}
			}
		}
	}
	slices.Sort(said)
	said = slices.Compact(said)
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
// has lost its record, too.
func (t *translator) countReplaced(e *ledger.Event, v *wire.Finished) int64 {
	parent, ok := t.parents[e.Run]
	if !ok {
		if r, err := t.by.o.Ledger.Run(t.ctx, e.Run); err == nil && !r.DryRun {
			parent = r.Parent
		}
	}
	if parent == 0 || parent != t.runRelease(e.Run).Number {
		return 0
	}
	return v.Added + v.Changed
}

// notedDifference keeps the first paths that a run reports as different.
func (t *translator) notedDifference(run ledger.RunID, x ledger.Exception) {
	if len(t.differing[run]) >= pathsTold {
		return
	}
	if t.differing == nil {
		t.differing = map[ledger.RunID][]string{}
	}
	t.differing[run] = append(t.differing[run], nameException(x))
}

// maxTold bounds an incident's text about one path, in bytes.
const maxTold = 200

func nameException(x ledger.Exception) string {
	if x.Cause == "" {
		return boundText(x.Path, maxTold)
	}
	return boundText(x.Path, maxTold) + " (" + boundText(x.Cause, maxTold) + ")"
}
