package apply

import (
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Outcome is what became of one file.
type Outcome string

// The outcomes.
const (
	Added     Outcome = "added"
	Changed   Outcome = "changed"   // content, mode or time differ from the release before
	Moved     Outcome = "moved"     // renamed from Event.From, no byte copied
	Repaired  Outcome = "repaired"  // it was not what the release before had put there
	Deleted   Outcome = "deleted"   // also a folder
	Unchanged Outcome = "unchanged" // counted, never an event
	Locked    Outcome = "locked"    // a program has it open: not done
	Extra     Outcome = "extra"     // the site's own: left alone
	Failed    Outcome = "failed"    // not done, see Event.Cause
)

// Kind of an Event.
type Kind uint8

// The kinds of events.
const (
	FileEvent     Kind = iota // Path and Outcome are set
	PhaseEvent                // Phase begins
	ProgressEvent             // the counters moved
	RetryEvent                // Cause says what is tried again, or was set aside
	PinEvent                  // Root is trusted from now on, because nobody said which to trust
)

// Phases of a run, in order.
const (
	PhaseRecover = "recover"
	PhaseOpen    = "open"
	PhaseCompare = "compare"
	PhasePlan    = "plan"
	PhaseExamine = "examine"
	PhaseStage   = "stage"
	PhaseWait    = "wait" // for locked files
	PhaseSync    = "sync"
	PhaseCommit  = "commit"
	PhaseRecord  = "record"
)

// Event is one thing that happened.
type Event struct {
	Kind    Kind
	Phase   string
	Path    string
	Entry   uint64 // 1 + the ordinal of the path's entry in the release's manifest; 0: it has none, or who finishes an earlier run's commit does not know it
	From    string // of a moved file
	Outcome Outcome
	Size    int64         // of the file, bytes
	Held    int64         // bytes of it that were on this machine already
	Fetched int64         // bytes of it that came from the store, before compression
	Digest  digest.Digest // of the file as the release has it
	Cause   error
	Root    trust.Public // of a PinEvent

	Committed bool // Options.Intend or Options.Settle was told of it

	FilesDone, FilesTotal int64 // of PhaseStage
	BytesDone, BytesTotal int64 // of PhaseStage: of the new files' content, also of files that are not complete yet
}

// The states that a run ends in.
const (
	Verified   = runs.Verified // every file was read back in this run, or is untouched since it was
	Incomplete = runs.Incomplete
	Planned    = runs.Planned
)

// Result is what a run did.
type Result struct {
	Repo    trust.RepoID
	Channel string
	Number  uint64          // of the release
	Release digest.Digest   // of the release object
	Tree    digest.Digest   // tree digest of what lies there now; zero when the run changed nothing or did not end
	Totals  manifest.Totals // of what lies there now
	Verdict runs.State      // Verified, Incomplete or Planned
	Unowned bool            // the record of what is ours is lost, and the target holds more than the release: what of it is the site's own is unknown
	NoOp    bool            // the folder was that release already
	Expired bool            // the head has expired: nothing newer is accepted until it is signed again

	runs.Counts

	Damaged      int64 // blocks and objects that arrived damaged and were fetched again
	BytesWire    int64 // received, as stored and compressed
	BytesFetched int64 // of content, from the store
	BytesHeld    int64 // of content, from this disk
	BytesWritten int64 // staged
	BytesNeeded  int64 // of content that the store has to give; set by a dry run too

	// What Tree rests on: files that this run has read, and files whose size
	// and times say that they are what was read earlier.
	ReadFiles, ReadBytes, StatedFiles int64
	OldestRead                        int64 // Unix seconds: no file's bytes were read longer ago; 0: there is none, or one never was
}

func (r *Result) count(o Outcome) {
	switch o {
	case Added:
		r.Added++
	case Changed:
		r.Changed++
	case Moved:
		r.Moved++
	case Repaired:
		r.Repaired++
	case Deleted:
		r.Deleted++
	case Unchanged:
		r.Unchanged++
	case Locked:
		r.Locked++
	case Extra:
		r.Extra++
	case Failed:
		r.Failed++
	}
}
