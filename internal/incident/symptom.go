package incident

import (
	"slices"
	"time"

	"nightferry/internal/ledger"
)

// near is how far apart a cause and its symptoms may show.
const near = 10 * time.Minute

// Symptoms returns the ids of the incidents that another one explains: it is of
// a kind that causes theirs, and was open, give or take a few minutes, when they
// opened. What is still open a while after its cause ended is a problem of its
// own.
func Symptoms(list []ledger.Incident, now time.Time) map[int64]bool {
	out := map[int64]bool{}
	for i := range list {
		x := &list[i]
		causes := Of(Kind(x.Kind)).SymptomOf
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
