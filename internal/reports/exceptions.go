package reports

import (
	"fmt"
	"slices"
	"strings"

	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/text"
)

// pathsTold is how many paths an incident names; the run's log has all of them.
const pathsTold = 20

// outcomeOfRun is one kind of outcome of one run.
type outcomeOfRun struct {
	run     ledger.RunID
	outcome runs.Outcome
}

// noteException keeps the first exceptions of each outcome that a run reports.
func (t *translator) noteException(run ledger.RunID, x ledger.Exception) {
	key := outcomeOfRun{run, x.Outcome}
	if len(t.exceptions[key]) >= pathsTold {
		return
	}
	if t.exceptions == nil {
		t.exceptions = map[outcomeOfRun][]ledger.Exception{}
	}
	t.exceptions[key] = append(t.exceptions[key], x)
}

// exceptionsOf returns the exceptions with these outcomes of the event's run, at most pathsTold of each outcome, in the
// order of their paths. n is how many there are.
func (t *translator) exceptionsOf(e *ledger.Event, n int64, outcomes ...runs.Outcome) (list []ledger.Exception) {
	for _, o := range outcomes {
		list = append(list, t.exceptions[outcomeOfRun{e.Run, o}]...)
	}
	if int64(len(list)) < min(n, pathsTold) {
		// An earlier message of the run has named them.
		old, err := t.by.o.Ledger.Exceptions(t.ctx, ledger.Filter{Domain: t.at.Domain, Site: t.at.Site, Channel: e.Channel, Run: e.Run, Limit: 10 * pathsTold})
		for _, x := range old {
			if err == nil && slices.Contains(outcomes, x.Outcome) {
				list = append(list, x)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b ledger.Exception) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(list, func(a, b ledger.Exception) bool { return a.Path == b.Path })
}

// maxTold bounds an incident's text about one path, in bytes.
const maxTold = 200

func nameException(x ledger.Exception) string {
	if x.Cause == "" {
		return text.Bound(x.Path, maxTold)
	}
	return fmt.Sprintf("%s (%s)", text.Bound(x.Path, maxTold), text.Bound(x.Cause, maxTold))
}
