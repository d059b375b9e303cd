// Package halt is the kill switch: the orders to stop, and the object in the
// bucket that holds the complete set of the active ones. It imports nothing of
// ours but the ground, so that it works when all else is broken. See
// docs/format/halt.md.
package halt

import (
	"fmt"
	"strings"
	"unicode"

	"nightferry/internal/frame"
)

const (
	// Kind and Version open the halt object.
	Kind    = "halt"
	Version = 1
	// Max bounds the halt object in bytes.
	Max = 1 << 20
	// MaxOrders bounds the active orders.
	MaxOrders = 4096
	// MaxPayload bounds the orders in bytes: the object less its envelope.
	MaxPayload = Max - 1<<10
	// MaxValue and MaxReason bound the texts of an order in bytes.
	MaxValue  = 256
	MaxReason = 1 << 10
)

// Scopes of an order. All has no value; the others name one region, domain,
// site or channel.
const (
	All     = "all"
	Region  = "region"
	Domain  = "domain"
	Site    = "site"
	Channel = "channel"
)

// Order is one active order to stop.
type Order struct {
	_      struct{} `cbor:",toarray"`
	ID     uint64   `json:"id"` // the epoch at which it was given; never reused
	Scope  string   `json:"scope"`
	Value  string   `json:"value"`
	Reason string   `json:"reason"`
	By     string   `json:"by"` // who, as the ordering host knows them
	At     int64    `json:"at"` // Unix seconds
}

// Orders is the payload of the halt object: every active order. The signed
// number is the epoch, which grows with every change.
type Orders struct {
	_      struct{} `cbor:",toarray"`
	Active []Order  `json:"active"`
}

// Subject is who asks whether it is halted. Empty fields match no order but
// All.
type Subject struct{ Region, Domain, Site, Channel string }

// Error says that an active order stops the subject. Nothing is lost: what is
// staged stays and is used on resume.
type Error struct{ Order Order }

func (e *Error) Error() string {
	what := e.Order.Scope
	if e.Order.Value != "" {
		what += " " + e.Order.Value
	}
	return fmt.Sprintf("halted by order %d (%s) from %s: %s", e.Order.ID, what, e.Order.By, e.Order.Reason)
}

// Find returns the first active order that stops s, or nil.
func (o *Orders) Find(s Subject) *Order {
	for i, a := range o.Active {
		if a.Scope == All || a.Value != "" && a.Value == s.field(a.Scope) {
			return &o.Active[i]
		}
	}
	return nil
}

func (s Subject) field(scope string) string {
	switch scope {
	case Region:
		return s.Region
	case Domain:
		return s.Domain
	case Site:
		return s.Site
	case Channel:
		return s.Channel
	}
	return ""
}

// Encode returns the payload.
func (o *Orders) Encode() ([]byte, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b, err := frame.Marshal(o)
	if err == nil && len(b) > MaxPayload {
		return nil, fmt.Errorf("halt: %d orders take %d bytes, at most %d are allowed: lift some, or give shorter reasons", len(o.Active), len(b), MaxPayload)
	}
	return b, err
}

// Decode reads the payload of a halt object.
func Decode(b []byte) (*Orders, error) {
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("halt: %d bytes, at most %d are allowed: %w", len(b), MaxPayload, frame.ErrDamaged)
	}
	var o Orders
	if err := frame.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("halt: %w", err)
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &o, nil
}

// Validate checks the orders' bounds. A scope that this program does not know
// is an error: a reader that cannot tell whether it is meant must stop.
func (o *Orders) Validate() error {
	if len(o.Active) > MaxOrders {
		return fmt.Errorf("halt: %d orders: %w", len(o.Active), frame.ErrDamaged)
	}
	for i, a := range o.Active {
		switch a.Scope {
		case All:
			if a.Value != "" {
				return fmt.Errorf("halt: order %d: all takes no value: %w", a.ID, frame.ErrDamaged)
			}
		case Region, Domain, Site, Channel:
			if a.Value == "" {
				return fmt.Errorf("halt: order %d: %s needs a value: %w", a.ID, a.Scope, frame.ErrDamaged)
			}
		default:
			return fmt.Errorf("halt: order %d: scope %q is not known: %w", a.ID, a.Scope, frame.ErrDamaged)
		}
		if len(a.Value) > MaxValue || len(a.Reason) > MaxReason || len(a.By) > MaxValue || a.At < 0 {
			return fmt.Errorf("halt: order %d: text or time out of bounds: %w", a.ID, frame.ErrDamaged)
		}
		if a.ID == 0 || i > 0 && o.Active[i-1].ID >= a.ID {
			return fmt.Errorf("halt: order %d: out of order: %w", a.ID, frame.ErrDamaged)
		}
		// They are shown to people, on terminals that obey control characters.
		if strings.ContainsFunc(a.Value+a.Reason+a.By, unicode.IsControl) {
			return fmt.Errorf("halt: order %d: holds a control character: %w", a.ID, frame.ErrDamaged)
		}
	}
	return nil
}
