// Package ledger is the Core's database: one SQLite file with releases, desired state, the sites' reports, incidents,
// halt orders and the audit. It makes no decisions: callers choose what to store and query it. See
// docs/format/ledger.md.
//
// If a method returned nil, its change survives a kill and a power cut (WAL, synchronous=FULL). All changes go through
// one writer. It commits the changes of all waiting callers in one transaction with one sync, and each caller still
// gets its own result. If a caller's context ends before its turn, its change is not made.
//
// Times have microsecond resolution and are returned in UTC; the zero time means "never". If the disk is full, a call
// returns [ErrFull] and stores nothing. The same call works again once there is space.
package ledger

import (
	"errors"
	"fmt"

	"nightferry/internal/runs"
)

// Errors that callers distinguish.
var (
	// ErrFull: the volume of the ledger is full.
	ErrFull = errors.New("the ledger's disk is full: free some space, nothing else needs to be done")
	// ErrNotFound: no such run, release, identity, incident or order.
	ErrNotFound = errors.New("not in the ledger")
	// ErrRendered: the events of a run are gone; its log file holds them.
	ErrRendered = errors.New("its log is written")
	// ErrConflict: the ledger already holds something else under that name.
	ErrConflict = errors.New("the ledger holds something else")
	// ErrUnknownToken: no token has that id and secret.
	ErrUnknownToken = errors.New("unknown enrollment token: ask for a new one")
	// ErrUsedToken: the token was used before, by another key.
	ErrUsedToken = errors.New("enrollment token was used before: ask for a new one, and find out who used it")
	// ErrExpiredToken: the token is too old.
	ErrExpiredToken = errors.New("enrollment token has expired: ask for a new one")
	// ErrForeignRun: a site reports about a run of another site or channel.
	ErrForeignRun = errors.New("the run belongs to another site or channel")
)

// GapError means that events before the given ones are missing.
type GapError struct {
	Want uint64 // the sequence that must come next
	Got  uint64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("events are missing: expected sequence %d, got %d", e.Want, e.Got)
}

// NewerError reports that a newer version of the program has written the ledger.
type NewerError struct {
	Path             string
	Found, Supported int // schema versions
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("open ledger %q: it has schema %d, this program knows schemas up to %d: upgrade nightferry here", e.Path, e.Found, e.Supported)
}

// RunID identifies a run.
type RunID = runs.ID

// ParseRunID parses a run id of 32 hexadecimal digits.
func ParseRunID(s string) (RunID, error) { return runs.ParseID(s) }
