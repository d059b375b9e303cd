package api

import (
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// The types of the views are the contract: they do not follow the Core's own types by
// themselves. TestViewsAreComplete fails for a field that a view lacks, so that each
// new field is a decision. Durations are seconds, and their names say so.

// Run is one run.
type Run struct {
	ID          runs.ID             `json:"id"`
	Domain      string              `json:"domain,omitempty"` // absent with Site: a run of the Core
	Site        string              `json:"site,omitempty"`
	Channel     string              `json:"channel"`
	Number      trust.ReleaseNumber `json:"release"`
	Release     trust.ReleaseDigest `json:"release_digest"`
	Tree        digest.Digest       `json:"tree"`
	Parent      trust.ReleaseNumber `json:"parent,omitempty"`
	Trigger     string              `json:"trigger,omitempty"`
	DryRun      bool                `json:"dry_run,omitempty"`
	Started     time.Time           `json:"started"`
	Finished    time.Time           `json:"finished,omitzero"`
	State       runs.State          `json:"state,omitempty"` // absent while it runs
	Cause       string              `json:"cause,omitempty"`
	Totals      runs.Totals         `json:"totals"`
	Attestation digest.Digest       `json:"attestation,omitzero"`
	Rendered    time.Time           `json:"rendered,omitzero"` // time at which its log file was complete
	Late        int64               `json:"late,omitempty"`    // events that came after that; they are not in the log
}

// RunDetail is one run with what the Core knows beside its row.
type RunDetail struct {
	Run
	Header   LogHeader      `json:"header"`
	Log      string         `json:"log,omitempty"`           // path of its log file in the log folder
	Files    int64          `json:"release_files,omitempty"` // absent: the ledger does not have the release
	Bytes    int64          `json:"release_bytes,omitempty"`
	Progress *runs.Progress `json:"progress,omitempty"` // absent: it has ended, or has sent none yet
	Measured *Measurement   `json:"measured,omitempty"` // absent: not measured yet
}

// LogHeader is the first line of a run's log file.
type LogHeader struct {
	Version int                 `json:"nightferry_log"`
	Run     string              `json:"run"`
	Domain  string              `json:"domain,omitempty"`
	Site    string              `json:"site,omitempty"`
	Channel string              `json:"channel"`
	Release trust.ReleaseNumber `json:"release"`
	Digest  trust.ReleaseDigest `json:"release_digest,omitzero"`
	Tree    string              `json:"tree,omitempty"`
	Parent  trust.ReleaseNumber `json:"parent,omitempty"` // the site's previous release
	Files   int64               `json:"files"`            // of the release
	Bytes   int64               `json:"bytes"`
	Trigger string              `json:"trigger,omitempty"`
	DryRun  bool                `json:"dry_run,omitempty"`
	Started time.Time           `json:"started"`
}

// RunLine is one line of the answer to run show: its beginning, or a file.
type RunLine struct {
	Run  *RunDetail `json:"run,omitempty"`
	File *File      `json:"file,omitempty"`
}

// File is the outcome of one file of a run.
type File struct {
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"` // added, changed, moved, repaired, deleted, unchanged, locked, failed, differs
	Size    int64        `json:"size"`
	Held    int64        `json:"held,omitempty"`    // bytes of it that were already on the site's disk
	Fetched int64        `json:"fetched,omitempty"` // bytes of it that came from the store
	SHA256  string       `json:"sha256,omitempty"`
	From    string       `json:"from,omitempty"` // the old path of a moved file
	Cause   string       `json:"cause,omitempty"`
	At      time.Time    `json:"at,omitzero"`
}

// Exception is a file that failed, was locked or was repaired. Since First, in run
// As, Count reports had this outcome and cause; the newest is from Run, at Last.
type Exception struct {
	Domain  string       `json:"domain"`
	Site    string       `json:"site"`
	Channel string       `json:"channel"`
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"`
	Cause   string       `json:"cause,omitempty"`
	Size    int64        `json:"size"`
	First   time.Time    `json:"first"`
	Last    time.Time    `json:"last"`
	Count   int64        `json:"count"`
	As      runs.ID      `json:"as"`
	Run     runs.ID      `json:"run"`
}

// AuditEntry is one immutable entry of the audit.
type AuditEntry struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	Detail string    `json:"detail,omitempty"`
}

// LogFile is the log file of one run.
type LogFile struct {
	File    string    `json:"file"` // absolute path on the Core's machine
	Size    int64     `json:"size"` // bytes
	Run     string    `json:"run"`
	Started time.Time `json:"started"`          // of the run: the day, in UTC
	Domain  string    `json:"domain,omitempty"` // absent with Site: a run of the Core
	Site    string    `json:"site,omitempty"`
	Channel string    `json:"channel"`
}
