package apply

import (
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Kind of an Event.
type Kind uint8

// The kinds of events.
const (
	FileEvent     Kind = iota // Path and Outcome are set
	PhaseEvent                // Phase starts
	ProgressEvent             // the counters moved
	RetryEvent                // Cause describes the retry, or the file that was set aside
	PinEvent                  // Root is trusted from now on, because the caller named no root key
)

// Phases of a run, in order.
const (
	PhaseRecover = "recover"
	PhaseOpen    = "open"
	PhaseCompare = "compare"
	PhasePlan    = "plan"
	PhaseExamine = "examine"
	PhaseStage   = "stage"
	PhaseBack    = "read back" // of staged files
	PhaseWait    = "wait"      // for locked files
	PhaseSync    = "sync"
	PhaseCommit  = "commit"
	PhaseRecord  = "record"
)

// Event is one thing that happened.
type Event struct {
	Kind    Kind
	Phase   string
	Path    string
	Entry   uint64 // 1 + the ordinal of the path's entry in the release's manifest; 0: it has none, or it is unknown because this run finishes an earlier run's commit
	From    string // of a moved file
	Outcome runs.Outcome
	Size    int64         // of the file, bytes
	Held    int64         // bytes of it that were already on this machine
	Fetched int64         // bytes of it that came from the store, before compression; of a ProgressEvent, of the run so far
	Wire    int64         // of a ProgressEvent: bytes received for Fetched
	Digest  digest.Digest // of the file as the release has it
	Cause   error
	Root    trust.Public // of a PinEvent

	Committed bool // the path was passed to Options.Intend or Options.Settle

	FilesDone, FilesTotal int64 // of PhaseStage and PhaseBack
	// of PhaseStage: content of the new files, including files that are not complete yet; of PhaseBack: content of
	// files of several chunks. Smaller files are read back when they are written.
	BytesDone, BytesTotal int64
}

// The final states of a run.
const (
	Verified   = runs.Verified // every file was read back in this run, or is untouched since it was
	Incomplete = runs.Incomplete
	Planned    = runs.Planned
)

// Result summarizes a run.
type Result struct {
	Repo    trust.RepoID
	Channel string
	Number  trust.ReleaseNumber // of the release
	Release trust.ReleaseDigest // of the release object
	Tree    digest.Digest       // tree digest of the target's current content; zero if the run changed nothing or did not finish
	Totals  manifest.Totals     // of the target's current content
	Verdict runs.State          // Verified, Incomplete or Planned
	Unowned bool                // the record of the files put there by releases is lost, and the target holds more than the release: the site's own files are unknown
	NoOp    bool                // the folder was that release already
	Expired bool                // the head has expired: nothing newer is accepted until it is signed again

	runs.Counts

	Damaged      int64 // blocks and objects that arrived damaged and were fetched again
	BytesWire    int64 // received, as stored and compressed
	BytesFetched int64 // of content, from the store
	BytesHeld    int64 // of content, from this disk
	BytesWritten int64 // staged
	BytesNeeded  int64 // of content that must come from the store; also set by a dry run

	// The evidence for Tree: files that this run has read, and files whose size and times match an earlier read.
	ReadFiles, ReadBytes, StatedFiles int64
	OldestRead                        int64 // Unix seconds of the oldest last read of any file; 0: no file, or one was never read
}
