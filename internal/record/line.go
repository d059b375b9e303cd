// Package record writes and reads the job logs: one file of JSON lines per run,
// that a person can grep and that only the readers of its domain may open. A log
// file is derived from the ledger and written whole, so that a crash leaves no
// half of one and doubles no line. See docs/format/record.md.
//
// The logs lie below one folder, as <domain>/<site>/<channel>/<date>/<run>.jsonl
// and core/<channel>/<date>/<run>.jsonl.
package record

import (
	"errors"
	"time"

	"nightferry/internal/runs"
)

// ErrDamaged: a file is not a log, or not a whole one.
var ErrDamaged = errors.New("damaged log file")

// Version of the lines' format; every header carries it.
const Version = 1

// Place says which run's log it is. With an empty Domain and Site it is the
// Core's own. Names are those of the configuration; Run is the run's id as 32
// hexadecimal digits.
type Place struct {
	Domain  string
	Site    string
	Channel string
	Date    time.Time // when the run started; the folder is named by its date in UTC
	Run     string
}

// Header is a log's first line. Digests are hexadecimal.
type Header struct {
	Version int       `json:"nightferry_log"` // given by Create
	Run     string    `json:"run"`            // given by Create
	Domain  string    `json:"domain,omitempty"`
	Site    string    `json:"site,omitempty"`
	Channel string    `json:"channel"`
	Release uint64    `json:"release"`
	Digest  string    `json:"digest,omitempty"` // of the release
	Tree    string    `json:"tree,omitempty"`
	Parent  uint64    `json:"parent,omitempty"` // the release that was held before
	Files   int64     `json:"files"`            // of the release
	Bytes   int64     `json:"bytes"`
	Trigger string    `json:"trigger,omitempty"`
	DryRun  bool      `json:"dry_run,omitempty"`
	Started time.Time `json:"started"`
}

// File is one line per file that was acted on, or that could not be.
type File struct {
	Path    string    `json:"path"`
	Outcome string    `json:"outcome"` // added, changed, moved, repaired, deleted, unchanged, locked, failed, differs
	Size    int64     `json:"size"`
	Held    int64     `json:"held,omitempty"`    // bytes of it that were on the site's disk already
	Fetched int64     `json:"fetched,omitempty"` // bytes of it that came from the store
	SHA256  string    `json:"sha256,omitempty"`
	From    string    `json:"from,omitempty"` // the old path of what moved
	Cause   string    `json:"cause,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// End is the closing line. A log without one is not whole.
type End struct {
	State    runs.State `json:"end"` // never empty
	Cause    string     `json:"cause,omitempty"`
	Finished time.Time  `json:"finished"`
	Lines    int64      `json:"lines"` // of files; given by Close
	runs.Totals
	Attestation string `json:"attestation,omitempty"` // SHA-256 of the site's signed statement
}
