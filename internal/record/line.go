// Package record writes and reads the job logs: one file of JSON lines per
// run, which can be searched with grep and read only by the readers of its
// domain. A log file is derived from the ledger and written as a whole. So a
// crash leaves no partial log and repeats no line. See docs/format/record.md.
//
// The logs are stored in one folder, as <domain>/<site>/<channel>/<date>/<run>.jsonl and
// core/<channel>/<date>/<run>.jsonl.
package record

import (
	"errors"
	"time"

	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// ErrDamaged reports that a file is not a log, or not a complete one.
var ErrDamaged = errors.New("damaged log file")

// Version of the lines' format; every header carries it.
const Version = 2

// Place identifies a run's log. If Domain and Site are empty, it is a log of
// the Core itself. Names are those of the configuration; Run is the run's id
// as 32 hexadecimal digits.
type Place struct {
	Domain  string
	Site    string
	Channel string
	Date    time.Time // start of the run; the folder is named by its date in UTC
	Run     string
}

// Header is a log's first line. Digests are hexadecimal.
type Header struct {
	Version int                 `json:"nightferry_log"` // given by Create
	Run     string              `json:"run"`            // given by Create
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

// File is the line of one file that was processed, or that failed.
type File struct {
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"`
	Size    int64        `json:"size"`
	Held    int64        `json:"held,omitempty"`    // bytes of it that were already on the site's disk
	Fetched int64        `json:"fetched,omitempty"` // bytes of it that came from the store
	SHA256  string       `json:"sha256,omitempty"`
	From    string       `json:"from,omitempty"` // the old path of a moved file
	Cause   string       `json:"cause,omitempty"`
	At      time.Time    `json:"at,omitzero"`
}

// End is the closing line. A log without it is incomplete.
type End struct {
	State    runs.State `json:"end"` // never empty
	Cause    string     `json:"cause,omitempty"`
	Finished time.Time  `json:"finished"`
	Lines    int64      `json:"lines"` // of files; given by Close
	runs.Totals
	Attestation string `json:"attestation,omitempty"` // SHA-256 of the site's signed statement
}
