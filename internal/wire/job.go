package wire

import (
	"crypto/ed25519"
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// MaxEvents and MaxReported bound the events of one Report and the outcomes in
// them: compressed, a few bytes could name millions.
const (
	MaxEvents   = 4 << 10
	MaxReported = 64 << 10
)

// Report carries events in sequence.
type Report struct {
	_          struct{} `cbor:",toarray"`
	Generation []byte   // of the site's database
	First      uint64   // sequence of Events[0]; the others follow by one
	Events     []Event  // at most MaxEvents, with MaxReported outcomes in all
}

// EventKind tells what an Event's Body is.
type EventKind uint8

// The kinds of events.
const (
	StartedEvent  EventKind = iota + 1 // Started
	OutcomesEvent                      // Outcomes
	FinishedEvent                      // Finished
	ProblemEvent                       // Problem
)

// Event is one piece of job data.
type Event struct {
	_       struct{} `cbor:",toarray"`
	Run     []byte   // 16 random bytes; empty: of no run
	Channel string   // "": of no channel
	At      int64    // Unix milliseconds, the site's clock
	Kind    EventKind
	Body    []byte // Encode of the kind's type
}

// Encode returns an event's body.
func Encode(v any) ([]byte, error) { return frame.Marshal(v) }

// Decode reads an event's body. It refuses values that are out of bounds, and
// cleans texts.
func Decode(body []byte, v any) error {
	err := frame.UnmarshalSmall(body, v)
	if err == nil {
		err = checkBounds(v)
	}
	if err != nil {
		return fmt.Errorf("event: %w: %w", frame.ErrDamaged, err)
	}
	return nil
}

// Started opens a run.
type Started struct {
	_       struct{} `cbor:",toarray"`
	Number  uint64
	Release digest.Digest
	Parent  uint64 // release that lay there before; 0: none
	Start   uint64 // the order that it obeys; 0: by itself
	DryRun  bool
	Trigger string // what asked for it beside State and order: scrub or verify; empty: nothing
}

// Finished closes a run, whatever its end.
type Finished struct {
	_           struct{} `cbor:",toarray"`
	Verdict     runs.State
	Error       string // why it is not verified
	runs.Totals `cbor:"totals"`
	Attestation []byte // signed; empty: the run did not get that far
}

// Problem is an incident that a site reports, or says is over.
type Problem struct {
	_     struct{} `cbor:",toarray"`
	Kind  string   // one word, as docs/operations.md lists them
	Text  string   // what, to what, why, what to do
	Since int64    // Unix seconds
	Over  bool
}

const verbAttest = "attest"

// Attestation is a site's signed statement of what lies on its disk. Its
// signed number is the release's.
type Attestation struct {
	_           struct{} `cbor:",toarray"`
	Channel     string
	Nonce       []byte        // the Core's
	Release     digest.Digest // of the release object
	Tree        digest.Digest // tree digest of the target
	Files       int64
	Bytes       int64
	ReadFiles   int64 // files whose bytes were read back in this run
	ReadBytes   int64
	StatedFiles int64 // files whose size and times say that they are what was read earlier
	OldestRead  int64 // Unix seconds: no file's bytes were read longer ago
	At          int64 // Unix seconds, the site's clock
}

// SignAttestation signs one with the site's identity key.
func SignAttestation(key ed25519.PrivateKey, repo trust.RepoID, a Address, number uint64, at *Attestation) ([]byte, error) {
	return Sign(key, repo, a, verbAttest, number, at)
}

// OpenAttestation checks and reads one.
func OpenAttestation(b []byte, repo trust.RepoID, a Address, site trust.Public) (*Attestation, uint64, error) {
	var at Attestation
	m, err := Open(b, repo, a, verbAttest, By(site), &at)
	if err != nil {
		return nil, 0, err
	}
	return &at, m.Number, nil
}
