// Package ledger is the Core's memory: one SQLite file that holds releases,
// desired state, what every site reported, incidents, halts and who did what.
// It decides nothing: callers tell it what to keep and ask it what was kept.
// See docs/format/ledger.md.
//
// Whatever a method has returned nil for survives a kill and a power cut
// (WAL, synchronous=FULL). All changes go through one writer, which puts the
// callers that wait at the same time into one transaction and one sync; each
// still gets its own result. Of a caller whose context ends before its turn
// nothing was changed.
//
// Times are kept to the microsecond and returned in UTC; the zero time means
// "never". A full disk is [ErrFull]: nothing of the call was kept, and the
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
	// ErrRendered: the events of a run are gone, its log file says what they did.
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

// GapError says that events are missing before those that were given.
type GapError struct {
	Want uint64 // the sequence that must come next
	Got  uint64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("events are missing: expected sequence %d, got %d", e.Want, e.Got)
}

// NewerError says that a newer program has written the ledger.
type NewerError struct {
	Path             string
	Found, Supported int // numbers of the schema
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("open ledger %q: it has schema %d, this program knows schemas up to %d: upgrade nightferry here", e.Path, e.Found, e.Supported)
}

// RunID names a run: 16 random bytes, made by whoever runs.
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
