package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

// Version is the version of the protocol and of every message's frame. A reader refuses a newer version and returns
// both numbers (*frame.NewerError).
const Version = 5

// kindOf returns the kind of the signed message of a verb.
func kindOf(verb string) (string, error) {
	switch verb {
	case VerbHello:
		return "helo", nil
	case VerbBeat:
		return "beat", nil
	case VerbProgress:
		return "prog", nil
	case VerbReport:
		return "rept", nil
	case VerbAsk:
		return "asku", nil
	case VerbRenew:
		return "renw", nil
	case VerbStopped:
		return "stpd", nil
	case VerbChallenge:
		return "chal", nil
	case VerbEnrol:
		return "enrl", nil
	case VerbState:
		return "stat", nil
	case VerbAck:
		return "ackn", nil
	case VerbURLs:
		return "urls", nil
	case VerbConfirmed:
		return "cfmd", nil
	case VerbRenewed:
		return "rnwd", nil
	case VerbNonce:
		return "nonc", nil
	case VerbGrant:
		return "grnt", nil
	case VerbRefuse:
		return "refu", nil
	case verbAttest:
		return "atts", nil
	}
	return "", fmt.Errorf("%w: verb %q", ErrSubject, verb)
}

// ErrTooLarge means that a message exceeds MaxMessage or MaxInflated and must be split.
var ErrTooLarge = errors.New("message too large")

// Sign encodes and signs a message. number is a State's revision or an Ack's sequence; other messages choose their own.
func Sign(key ed25519.PrivateKey, repo trust.RepoID, a Address, verb string, number uint64, v any) ([]byte, error) {
	kind, err := kindOf(verb)
	if err != nil {
		return nil, err
	}
	body, err := frame.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s for %s: %w", verb, a, err)
	}
	if len(body) > MaxInflated {
		return nil, fmt.Errorf("encode %s for %s: %d bytes: %w", verb, a, len(body), ErrTooLarge)
	}
	b, err := trust.Sign(key, trust.Subject{Kind: kind, Version: Version, Repo: repo, Scope: a.String(), Number: number}, deflate(body))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode %s for %s: %d bytes: %w", verb, a, len(b), ErrTooLarge)
	}
	return b, nil
}

// Signed describes a message with a valid signature, by a signer that Open's allow has accepted.
type Signed struct {
	Signer trust.Public
	Number uint64
}

// OlderError means that a message has an older protocol version. Its signature was not checked, because older versions
// sign other bytes.
type OlderError struct{ Found uint16 }

func (e *OlderError) Error() string {
	return fmt.Sprintf("the message has protocol version %d, this nightferry speaks version %d: upgrade the older side", e.Found, Version)
}

// Open verifies that b is a message of verb from or for a in repo, signed by a key that allow accepts, and decodes it
// into v. It decodes nothing before that. It returns an error for values that are out of bounds, and cleans a site's
// texts.
func Open(b []byte, repo trust.RepoID, a Address, verb string, allow func(trust.Public) error, v any) (Signed, error) {
	kind, err := kindOf(verb)
	if err != nil {
		return Signed{}, err
	}
	s, err := trust.Parse(kind, Version, MaxMessage, b)
	if err != nil {
		return Signed{}, fmt.Errorf("%s of %s: %w", verb, a, err)
	}
	if s.Subject.Version < Version {
		return Signed{}, &OlderError{s.Subject.Version}
	}
	if err := s.Verify(trust.Subject{Kind: kind, Version: Version, Repo: repo, Scope: a.String(), Number: s.Subject.Number}); err != nil {
		return Signed{}, fmt.Errorf("%s of %s: %w", verb, a, err)
	}
	if err := allow(s.Signer); err != nil {
		return Signed{}, fmt.Errorf("%s of %s: %w", verb, a, err)
	}
	body, err := inflate(verb, s.Payload)
	if err == nil {
		err = frame.UnmarshalSmall(body, v)
	}
	if err == nil {
		err = checkBounds(v)
	}
	if err != nil {
		return Signed{}, fmt.Errorf("%s of %s: %w: %w", verb, a, frame.ErrDamaged, err)
	}
	return Signed{Signer: s.Signer, Number: s.Subject.Number}, nil
}

// By returns an allow function for one key.
func By(key trust.Public) func(trust.Public) error {
	return func(signer trust.Public) error {
		if signer != key {
			return fmt.Errorf("%w: signed by key %s, wanted %s", trust.ErrUntrusted, signer, key)
		}
		return nil
	}
}

// Controls returns an allow function for the keys that may send agents control messages.
func Controls(doc *trust.Doc) func(trust.Public) error {
	return func(signer trust.Public) error { return doc.Allows(signer, trust.Control) }
}

// A payload is one byte, followed by the body as it is (0) or as one zstd frame (1).
const (
	plain      = 0
	compressed = 1
	// worth is the minimum length in bytes for trying compression.
	worth = 256
)

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(512<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constant: cannot fail
	}
	return e
})

var (
	decoder      = sync.OnceValue(func() *zstd.Decoder { return newDecoder(MaxInflated) })
	decoderSmall = sync.OnceValue(func() *zstd.Decoder { return newDecoder(maxSmall) })
)

func newDecoder(most uint64) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(most), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options are constant: cannot fail
	}
	return d
}

// maxSmall bounds the decompressed payloads of a site's messages other than reports.
const maxSmall = 512 << 10

func deflate(body []byte) []byte {
	if len(body) >= worth {
		if z := encoder().EncodeAll(body, []byte{compressed}); len(z) < len(body) {
			return z
		}
	}
	return append([]byte{plain}, body...)
}

func inflate(verb string, p []byte) ([]byte, error) {
	if len(p) == 0 {
		return nil, errors.New("an empty payload")
	}
	switch p[0] {
	case plain:
		return p[1:], nil
	case compressed:
		switch verb {
		case VerbHello, VerbBeat, VerbProgress, VerbAsk, VerbRenew, VerbStopped, VerbChallenge, VerbEnrol, verbAttest:
			return decoderSmall().DecodeAll(p[1:], nil)
		}
		return decoder().DecodeAll(p[1:], nil)
	}
	return nil, fmt.Errorf("payload of form %d", p[0])
}
