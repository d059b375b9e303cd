package incident

import (
	"slices"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

// near is the maximum time between a cause and its symptoms.
const near = 10 * time.Minute

// Symptoms returns the ids of the incidents that another one explains: its kind
// causes theirs, and it was open, give or take a few minutes, when they opened.
// An incident that is still open a while after its cause ended counts as its
// own.
func Symptoms(list []ledger.Incident, now time.Time) map[int64]bool {
	out := map[int64]bool{}
	for i := range list {
		x := &list[i]
		causes := kinds.Of(Kind(x.Kind)).SymptomOf
		out[x.ID] = slices.ContainsFunc(list, func(y ledger.Incident) bool {
			if !slices.Contains(causes, Kind(y.Kind)) || x.Opened.Before(y.Opened.Add(-near)) {
				return false
			}
			if y.Resolved.IsZero() {
				return true
			}
			end := y.Resolved.Add(near)
			return !x.Opened.After(end) && (!x.Resolved.IsZero() || now.Before(end))
		})
	}
	return out
}
