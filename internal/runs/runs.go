// Package runs defines the nouns of a run, each once: its State, the Counts of
// its outcomes, its Totals and its Progress. The verbs count them, wire
// messages carry them, the ledger and log files store them, and the command
// line shows them.
package runs

import "slices"

// State is the result of a run. The empty State means that the run is under
// way.
type State string

// The states of a site's run.
const (
	Verified   State = "verified"   // every file equals the release, by digest
	Incomplete State = "incomplete" // some file differs, or could not be checked
	Unowned    State = "unowned"    // every file of the release is in place, but files of earlier releases may remain: the record of them is lost
	Different  State = "different"  // a check found differences, and changed nothing
	Planned    State = "planned"    // a dry run
	Failed     State = "failed"
	Stopped    State = "stopped"    // by a halt, a window's end or a newer desired state
	Refused    State = "refused"    // the site does not allow the target, or a guard refused a publish
	Emptied    State = "emptied"    // the target held a release and holds nothing of it now; nothing was changed
	Unreadable State = "unreadable" // the target, or its record of the applied release, cannot be read
	Missed     State = "missed"     // the Core recorded a window without a run
)

// The states of a publish and of a measurement, in addition to Failed, Stopped,
// Planned and Refused.
const (
	Published State = "published"
	Nothing   State = "nothing" // the source equals the newest release
	Same      State = "same"    // the source equals the published release
	MovedOn   State = "moved-on"
	Damaged   State = "damaged"
)

var all = []State{Verified, Incomplete, Unowned, Different, Planned, Failed, Stopped, Refused, Emptied, Unreadable, Missed, Published, Nothing, Same, MovedOn, Damaged}

// All lists the states. The caller may change the list.
func All() []State { return slices.Clone(all) }

// Valid reports whether s is one of All.
func (s State) Valid() bool { return slices.Contains(all, s) }

// Accounted reports whether a site's run with this state has compared every
// file: files that it does not name are unchanged.
func (s State) Accounted() bool {
	return s == Verified || s == Incomplete || s == Unowned || s == Planned || s == Different
}

// NoTarget lists the states of a site's run that found no target to work on.
// Until a run ends Accounted, an earlier proof of the target is void.
func NoTarget() []State { return []State{Emptied, Refused, Unreadable} }

// LostTarget reports whether the state is one of NoTarget.
func (s State) LostTarget() bool { return slices.Contains(NoTarget(), s) }

// Counts are the outcomes of a run: files; added, unchanged and deleted also
// count folders.
type Counts struct {
	_         struct{} `cbor:",toarray"`
	Added     int64    `json:"added"`
	Changed   int64    `json:"changed"`
	Moved     int64    `json:"moved"`
	Repaired  int64    `json:"repaired"`
	Deleted   int64    `json:"deleted"`
	Unchanged int64    `json:"unchanged"`
	Locked    int64    `json:"locked"`
	Extra     int64    `json:"extra"` // the site's own files, left alone
	Failed    int64    `json:"failed"`
	Differs   int64    `json:"differs"` // a check found them to differ, and changed nothing
}

// Totals are the sums of a run.
type Totals struct {
	_       struct{} `cbor:",toarray"`
	Files   int64    `json:"files"` // of the release
	Bytes   int64    `json:"bytes"` // of the release
	Counts  `cbor:"counts"`
	Held    int64 `json:"held"`    // bytes of the new files that were on the site's disk already
	Fetched int64 `json:"fetched"` // bytes of content received from the store, in all attempts
	Wire    int64 `json:"wire"`    // bytes received for them, as stored and compressed
}

// Progress is the current progress of a run.
type Progress struct {
	_          struct{} `cbor:",toarray"`
	Phase      string   `json:"phase"`
	FilesDone  int64    `json:"files_done"`
	FilesTotal int64    `json:"files_total"`
	BytesDone  int64    `json:"bytes_done"`
	BytesTotal int64    `json:"bytes_total"`
	BytesWire  int64    `json:"bytes_wire"` // received from the store, or sent to it
}
