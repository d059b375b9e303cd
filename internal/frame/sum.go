package frame

import (
	"fmt"

	"nightferry/internal/digest"
)

// AppendSum appends the SHA-256 of all of b. The format object and the index
// root end with this sum, because neither a signature nor their key would
// reveal a flipped bit.
func AppendSum(b []byte) []byte {
	sum := digest.Of(b)
	return append(b, sum[:]...)
}

// CutSum returns data without the sum that AppendSum appended. For an object
// of a newer version it returns a *NewerError without checking the sum. All
// other errors wrap ErrDamaged.
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
