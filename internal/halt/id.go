package halt

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// ID names a halt order: 16 random bytes, drawn by its issuer and never reused.
// The epoch orders sets of orders; it names none.
type ID [16]byte

// NewID draws an ID.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// ParseID reads the 32 hexadecimal digits of an ID.
func ParseID(s string) (id ID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("halt order id %q: want 32 hexadecimal digits", s)
	}
	return ID(b), nil
}

// String returns all 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the 8 digits by which people name an order.
func (id ID) Short() string { return id.String()[:8] }

// IsZero reports whether id names no order of the Core or the store.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// MarshalText makes an ID a hexadecimal string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// MinPrefix is the least number of digits that may stand for an ID.
const MinPrefix = 4

// IsPrefix reports whether s can be the beginning of an ID.
func IsPrefix(s string) bool {
	return len(s) >= MinPrefix && len(s) <= 2*len(ID{}) && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// Match returns the one order whose ID begins with prefix; nil: there is none.
// It is an error if there are several.
func (o *Orders) Match(prefix string) (found *Order, err error) {
	prefix = strings.ToLower(prefix)
	for i := range o.Active {
		if !strings.HasPrefix(o.Active[i].ID.String(), prefix) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("halt order %s: %w", prefix, ErrAmbiguous)
		}
		found = &o.Active[i]
	}
	return found, nil
}
