package api

import (
	"time"

	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/tasks"
	"nightferry/internal/trust"
)

// The types below are the contract: they do not follow the ledger's rows by
// themselves. A row that gains a field no longer converts, so that each new field
// is a decision. Durations are seconds, and their names say so.

// Run is one run, as GET /v1/runs lists it.
type Run struct {
	ID          ledger.RunID        `json:"id"`
	Domain      string              `json:"domain,omitempty"` // empty with Site: a run of the Core
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
	State       runs.State          `json:"state,omitempty"` // empty while it runs
	Cause       string              `json:"cause,omitempty"`
	Totals      runs.Totals         `json:"totals"`
	Attestation digest.Digest       `json:"attestation,omitzero"`
	Rendered    time.Time           `json:"rendered,omitzero"` // time at which its log file was complete
	Late        int64               `json:"late,omitempty"`    // events that came after that; they are not in the log
}

// RunDetail is one run with what the Core knows beside its row.
type RunDetail struct {
	Run
	Header   record.Header       `json:"header"`
	Log      string              `json:"log,omitempty"`           // path of its log file in the log folder
	Files    int64               `json:"release_files,omitempty"` // 0: the ledger does not have the release
	Bytes    int64               `json:"release_bytes,omitempty"`
	Progress *runs.Progress      `json:"progress,omitempty"` // nil: it has ended, or has sent none yet
	Measured *ledger.Measurement `json:"measured,omitempty"` // nil: not measured yet
}

// Event is what happened at a site while a client follows its runs.
type Event struct {
	At       time.Time      `json:"at"`
	Kind     core.EventKind `json:"kind"`
	Domain   string         `json:"domain,omitempty"`
	Site     string         `json:"site,omitempty"`
	Channel  string         `json:"channel,omitempty"`
	Run      string         `json:"run,omitempty"` // 32 hexadecimal digits
	Text     string         `json:"text,omitempty"`
	Progress *runs.Progress `json:"progress,omitempty"`
	Ended    *Run           `json:"ended,omitempty"`
}

func eventOf(e core.Event) *Event {
	return &Event{e.At, e.Kind, e.Domain, e.Site, e.Channel, e.Run, e.Text, e.Progress, (*Run)(e.Ended)}
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
	As      ledger.RunID `json:"as"`
	Run     ledger.RunID `json:"run"`
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

// Task is the state of one of the Core's periodic tasks.
type Task struct {
	Name    string         `json:"name"`
	Period  ledger.Seconds `json:"period_seconds,omitempty"` // 0: when due
	Bound   ledger.Seconds `json:"bound_seconds"`            // how late the end of a turn may be
	Running time.Time      `json:"running,omitzero"`         // since when, while it runs
	Success time.Time      `json:"success,omitzero"`         // end of the last turn that succeeded; zero: none has yet
	Error   string         `json:"error,omitempty"`          // of the last turn, if it failed
	Overdue bool           `json:"overdue,omitempty"`
}

func taskOf(s tasks.Status) Task {
	return Task{s.Name, ledger.Seconds(s.Period), ledger.Seconds(s.Bound), s.Running, s.Success, s.Error, s.Overdue}
}

// LogFile is the log file of one run.
type LogFile struct {
	File    string    `json:"file"` // absolute path on the Core's machine
	Size    int64     `json:"size"` // bytes
	Run     string    `json:"run"`
	Started time.Time `json:"started"`          // of the run: the day, in UTC
	Domain  string    `json:"domain,omitempty"` // empty with Site: a run of the Core
	Site    string    `json:"site,omitempty"`
	Channel string    `json:"channel"`
}

// Held is what a Core's sites hold or should hold.
type Held struct {
	Repo     string                           `json:"repository"`
	Releases map[string][]trust.ReleaseNumber `json:"releases"` // by channel, ascending
	Oldest   map[string][]string              `json:"oldest"`   // holders of the first of them
}

// Reloaded is what a reload put in force.
type Reloaded struct {
	Config   string   `json:"config"`
	Channels int      `json:"channels"`
	Domains  int      `json:"domains"`
	Sites    int      `json:"sites"`
	Former   []string `json:"former,omitempty"`  // public addresses that were in force before
	Unmoved  []string `json:"unmoved,omitempty"` // sites that know no others yet
	Faults   []string `json:"faults,omitempty"`  // why alerts cannot be delivered: a secret or a file is missing
}

// PublishRequest publishes channels.
type PublishRequest struct {
	Channel        string `json:"channel,omitempty"` // empty: all that are configured
	AllowDeletes   bool   `json:"allow_deletes,omitempty"`
	AllowEmpty     bool   `json:"allow_empty,omitempty"`
	AllowUnmounted bool   `json:"allow_unmounted,omitempty"`
	Rehash         bool   `json:"rehash,omitempty"`
	DryRun         bool   `json:"dry_run,omitempty"`
}

// PublishLine is the progress of a publish, or its result.
type PublishLine struct {
	Channel  string          `json:"channel,omitempty"`
	Progress *runs.Progress  `json:"progress,omitempty"`
	Done     *core.Published `json:"done,omitempty"`
}

// FollowLine is a line of the answer to a sync or a verify: the requests once,
// then events, and for a verify what differs.
type FollowLine struct {
	Orders  []core.Order `json:"orders,omitempty"`
	Event   *Event       `json:"event,omitempty"`
	Differs *Differing   `json:"differs,omitempty"`
}

// Differing is a path that a site found not to be as its release says.
type Differing struct {
	Site    string       `json:"site"`
	Channel string       `json:"channel"`
	Run     string       `json:"run"`
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"` // an exception
	Why     string       `json:"why"`     // the problem, one word, and its detail
}

// RunLine is one line of the answer to run show: its beginning, or a file.
type RunLine struct {
	Run  *RunDetail   `json:"run,omitempty"`
	File *record.File `json:"file,omitempty"`
}

// ResumeRequest lifts one order, or those of a scope.
type ResumeRequest struct {
	Order string `json:"order,omitempty"` // the beginning of its ID
	Scope string `json:"scope,omitempty"`
	Value string `json:"value,omitempty"`
}

// TokenRequest asks for tokens: one of a site, or those of a wave.
type TokenRequest struct {
	Site  string         `json:"site,omitempty"`
	Wave  int            `json:"wave,omitempty"`
	Scope fleet.Scope    `json:"scope"`
	Life  ledger.Seconds `json:"life_seconds,omitempty"`
}

// Subject names a site or a domain, and the reason for the audit.
type Subject struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// IncidentNote is a person's word about an open incident.
type IncidentNote struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

// AlertRequest asks for a test alert.
type AlertRequest struct {
	To string `json:"to,omitempty"` // empty: all recipients
}

// SecretRequest is a change of the vault. A value never becomes part of a URL.
type SecretRequest struct {
	Name  string `json:"name"`
	Value []byte `json:"value,omitempty"`
	Prune bool   `json:"prune,omitempty"` // remove the versions before it
}

// SecretChange is the result of a SecretRequest.
type SecretChange struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Removed int    `json:"removed"`
}
