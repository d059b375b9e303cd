package vault

import (
	"fmt"
	"io"
)

const hidden = "[secret]"

// Secret is a value that does not print: every way of formatting or encoding
// it gives [secret], even inside another value. The handlers of log/slog use
// these ways too.
type Secret struct {
	// A function, because fmt does not call methods of unexported fields. It
	// would print the bytes of a slice and, for %s, the target of a pointer.
	// Of a function it prints only the address.
	reveal func() []byte
}

// NewSecret takes ownership of value.
func NewSecret(value []byte) Secret { return Secret{func() []byte { return value }} }

// Reveal returns the value itself. Do not change it, log it or wrap it in an
// error.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// String returns [secret].
func (Secret) String() string { return hidden }

// Format writes [secret], whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText returns [secret], for encoders of text: YAML, XML and log
// handlers.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON returns "[secret]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalBinary returns [secret], for gob and CBOR.
func (Secret) MarshalBinary() ([]byte, error) { return []byte(hidden), nil }
