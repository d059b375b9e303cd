package wire

import (
	"crypto/ed25519"
	"fmt"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// MaxEvents and MaxReported bound the events of one Report and their outcomes: otherwise a few compressed bytes could
// stand for millions.
const (
	MaxEvents   = 4 << 10
	MaxReported = 64 << 10
)

// Report carries a sequence of events.
type Report struct {
	_          struct{} `cbor:",toarray"`
	Generation []byte   // of the site's database
	First      uint64   // sequence of Events[0]; the others follow by one
	Events     []Event  // at most MaxEvents, with MaxReported outcomes in all
}

// EventKind is the type of an Event's Body.
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
	Run     []byte   // 16 random bytes; empty: no run
	Channel string   // "": no channel
	At      int64    // Unix milliseconds, the site's clock
	Kind    EventKind
	Body    []byte // a value of the kind's type, encoded by Encode
}

// Encode returns an event's body.
func Encode(v any) ([]byte, error) { return frame.Marshal(v) }

// Decode decodes an event's body. It returns an error for values that are out of bounds, and cleans texts.
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

// Started reports the start of a run.
type Started struct {
	_       struct{} `cbor:",toarray"`
	Number  trust.ReleaseNumber
	Release trust.ReleaseDigest
	Parent  trust.ReleaseNumber // release that the target held before; 0: none
	Start   uint64              // revision of the sync request that started the run; 0: none
	DryRun  bool
	Trigger string // other reason for the run: scrub or verify; empty: none
}

// Finished reports the end of a run in any state.
type Finished struct {
	_           struct{} `cbor:",toarray"`
	Verdict     runs.State
	Error       string // reason why it is not verified
	runs.Totals `cbor:"totals"`
	Attestation []byte // signed; empty: the run ended before its attestation
	Filled      Place  `cbor:"filled"` // the target, if it holds content of a release
}

// Problem reports an incident at a site, or its end.
type Problem struct {
	_        struct{} `cbor:",toarray"`
	Kind     string   // one of ProblemKinds
	Text     string   // act, thing, cause and remedy
	Since    int64    // Unix seconds
	Resolved bool
}

const verbAttest = "attest"

// Attestation is a site's signed statement of its target's content. Its signed number is the release's.
type Attestation struct {
	_           struct{} `cbor:",toarray"`
	Channel     string
	Nonce       []byte              // the Core's
	Release     trust.ReleaseDigest // of the release object
	Tree        digest.Digest       // tree digest of the target
	Files       int64
	Bytes       int64
	ReadFiles   int64 // files whose bytes were read back in this run
	ReadBytes   int64
	StatedFiles int64 // files checked only by size and time against an earlier read
	OldestRead  int64 // Unix seconds: the oldest read of any file's bytes
	At          int64 // Unix seconds, the site's clock
}

// SignAttestation signs an attestation with the site's identity key.
func SignAttestation(key ed25519.PrivateKey, repo trust.RepoID, a Address, number trust.ReleaseNumber, at *Attestation) ([]byte, error) {
	return Sign(key, repo, a, verbAttest, uint64(number), at)
}

// OpenAttestation verifies and decodes an attestation.
func OpenAttestation(b []byte, repo trust.RepoID, a Address, site trust.Public) (*Attestation, trust.ReleaseNumber, error) {
	var at Attestation
	m, err := Open(b, repo, a, verbAttest, By(site), &at)
	if err != nil {
		return nil, 0, err
	}
	return &at, trust.ReleaseNumber(m.Number), nil
}
