package incident

import (
	"slices"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
)

const (
	// before and after are how long before and after its cause opened a symptom
	// may open. Symptoms show first if the Core looks at the cause more rarely.
	before = 10 * time.Minute
	after  = time.Hour
	// outlives is how long a symptom may stay open after its cause ended.
	outlives = 10 * time.Minute
	// maxHidden is how long a symptom is hidden at most.
	maxHidden = 24 * time.Hour
)

// Symptoms returns the ids of the incidents for which no alert is sent, because
// another one explains them. That holds only if all of this is true:
//
//   - the registry names the cause's kind in the symptom's SymptomOf, and the
//     symptom's object is not in Own;
//   - the cause is about no channel, or about the symptom's channel;
//   - the cause is at the Core, or at every site that has the symptom;
//   - the symptom opened near the time at which the cause opened;
//   - the symptom has ended, or the cause has not ended for long, and the symptom
//     has not been open for a day.
//
// All other incidents are alerted.
func Symptoms(list []ledger.Incident, now time.Time) map[int64]bool {
	out := map[int64]bool{}
	for i := range list {
		x := &list[i]
		if x.Resolved.IsZero() && now.Sub(x.Opened) > maxHidden {
			continue
		}
		if slices.ContainsFunc(list, func(y ledger.Incident) bool { return isCause(&y, x, now) }) {
			out[x.ID] = true
		}
	}
	return out
}

// isCause reports whether y is the cause of x.
func isCause(y, x *ledger.Incident, now time.Time) bool {
	kind, what := kinds.CutKey(x.Key)
	e := kinds.Of(kind)
	if !slices.Contains(e.SymptomOf, Kind(y.Kind)) || slices.Contains(e.Own, what) {
		return false
	}
	_, of := kinds.CutKey(y.Key)
	if kinds.Of(Kind(y.Kind)).Object == kinds.Channel && of != "" && (e.Object != kinds.Channel || of != what) {
		return false
	}
	if !coversSites(y.Members, x.Members) || x.Opened.Before(y.Opened.Add(-before)) || x.Opened.After(y.Opened.Add(after)) {
		return false
	}
	if y.Resolved.IsZero() {
		return true
	}
	end := y.Resolved.Add(outlives)
	return !x.Opened.After(end) && (!x.Resolved.IsZero() || now.Before(end))
}

// coversSites reports whether a cause at the sites of y reaches all sites of x. A
// member without a site is the Core, which all sites depend on.
func coversSites(y, x []ledger.Member) bool {
	has := func(site string, domain string) bool {
		return slices.ContainsFunc(y, func(m ledger.Member) bool { return m.Site == "" || m.Site == site && m.Domain == domain })
	}
	return !slices.ContainsFunc(x, func(m ledger.Member) bool { return !has(m.Site, m.Domain) })
}
