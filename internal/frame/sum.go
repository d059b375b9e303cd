package frame

import (
	"fmt"

	"nightferry/internal/digest"
)

// AppendSum appends the SHA-256 of all of b. The format object and the index
// root end with one: no signature and no name of their own would show a
// flipped bit in them.
func AppendSum(b []byte) []byte {
	sum := digest.Of(b)
	return append(b, sum[:]...)
}

// CutSum returns data without the sum that AppendSum put there. An object of a
// newer version is a *NewerError, whatever it ends with; all else that does
// not match wraps ErrDamaged.
func CutSum(kind string, supported uint16, data []byte) ([]byte, error) {
	if err := CheckHeader(kind, supported, data); err != nil {
		return nil, err
	}
	at := len(data) - digest.Size
	if at < HeaderSize {
		return nil, fmt.Errorf("%s: %d bytes, too short for its checksum: %w", kind, len(data), ErrDamaged)
	}
	if digest.Of(data[:at]) != digest.Digest(data[at:]) {
		return nil, fmt.Errorf("%s: it does not match its checksum: %w", kind, ErrDamaged)
	}
	return data[:at], nil
}
