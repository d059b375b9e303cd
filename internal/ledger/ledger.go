// Package ledger is the Core's memory: one SQLite file that holds releases,
// desired state, the sites' reports, incidents, halt orders and the audit. It
// decides nothing: callers choose what to store and query it. See
// docs/format/ledger.md.
//
// If a method returned nil, its change survives a kill and a power cut (WAL,
// synchronous=FULL). All changes go through one writer, which commits the
// changes of all waiting callers in one transaction with one sync. Each caller
// still gets its own result. If a caller's context ends before its turn,
// nothing is changed for it.
//
// Times are kept to the microsecond and returned in UTC; the zero time means
// "never". A full disk is [ErrFull]: nothing of the call was stored, and the
// same call works again once there is space.
package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// The conditions that callers branch on.
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

// NewerError means that a newer program has written the ledger.
type NewerError struct {
	Path             string
	Found, Supported int // numbers of the schema
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("open ledger %q: it has schema %d, this program knows schemas up to %d: upgrade nightferry here", e.Path, e.Found, e.Supported)
}

// RunID names a run: 16 random bytes, made by the machine that runs it.
type RunID [16]byte

// ParseRunID reads the 32 hexadecimal digits of a run id.
func ParseRunID(s string) (id RunID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("run id %q: want 32 hexadecimal digits", s)
	}
	return RunID(b), nil
}

func (r RunID) String() string { return hex.EncodeToString(r[:]) }

// IsZero reports whether r names no run.
func (r RunID) IsZero() bool { return r == RunID{} }

// MarshalText makes a run id a hexadecimal string in JSON.
func (r RunID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (r *RunID) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRunID(string(b))
	return err
}
