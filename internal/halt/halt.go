// Package halt is the kill switch: the halt orders, and the object in the
// bucket that holds the complete set of the active ones. It imports only the
// ground floor of this module, so that it works when all else is broken. See
// docs/format/halt.md.
package halt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"nightferry/internal/frame"
	"nightferry/internal/text"
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

// ErrAmbiguous means that several orders begin with the digits given.
var ErrAmbiguous = errors.New("several orders begin with these digits: give more of them")

// Order is one active halt order.
type Order struct {
	_      struct{} `cbor:",toarray"`
	ID     ID       `json:"id"`
	Scope  string   `json:"scope"`
	Value  string   `json:"value"`
	Reason string   `json:"reason"`
	By     string   `json:"by"` // author, as known to the issuing host
	At     int64    `json:"at"` // Unix seconds
}

// Orders is the payload of the halt object: every active order, the oldest
// first. The signed number is the epoch, which grows with every change.
type Orders struct {
	_      struct{} `cbor:",toarray"`
	Active []Order  `json:"active"`
}

// Subject identifies the party that may be halted. An empty field matches only
// the scope All.
type Subject struct{ Region, Domain, Site, Channel string }

// Error means that an active halt order stops the subject. Nothing is lost:
// staged data stays and is used on resume.
type Error struct{ Order Order }

// Target describes the scope of an order in words.
func (o *Order) Target() string {
	if o.Scope == All {
		return All
	}
	return o.Scope + " " + o.Value
}

func (e *Error) Error() string {
	if e.Order.ID.IsZero() {
		return fmt.Sprintf("halted on %s itself by %s: %s", e.Order.Target(), e.Order.By, e.Order.Reason)
	}
	return fmt.Sprintf("halted by order %s (%s) from %s: %s", e.Order.ID.Short(), e.Order.Target(), e.Order.By, e.Order.Reason)
}

// NewOrder returns an order with an ID of its own. No reason keeps an order from being given: texts are
// cleaned and cut.
func NewOrder(scope, value, reason, by string, at time.Time) Order {
	return Order{ID: NewID(), Scope: scope, Value: value, Reason: text.Clean(reason, MaxReason), By: text.Clean(by, MaxValue), At: at.Unix()}
}

// Add adds the orders that the set does not contain yet, in their places.
func (o *Orders) Add(more ...Order) {
	for _, a := range more {
		if !o.Has(a.ID) {
			o.Active = append(o.Active, a)
		}
	}
	slices.SortFunc(o.Active, compare)
}

// Given returns the active orders with exactly this scope and value; for All it returns every order.
func (o *Orders) Given(scope, value string) (list []Order) {
	for _, a := range o.Active {
		if scope == All || a.Scope == scope && a.Value == value {
			list = append(list, a)
		}
	}
	return list
}

// Has reports whether an order is active.
func (o *Orders) Has(id ID) bool {
	return slices.ContainsFunc(o.Active, func(a Order) bool { return a.ID == id })
}

// compare is the order of orders: by time, then by ID.
func compare(a, b Order) int { return cmp.Or(cmp.Compare(a.At, b.At), a.ID.Compare(b.ID)) }

// Find returns the oldest active order that stops s, or nil.
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

// Validate checks the orders' bounds. An unknown scope is an error: a reader that cannot know whether an order applies
// to it must stop.
func (o *Orders) Validate() error {
	if len(o.Active) > MaxOrders {
		return fmt.Errorf("halt: %d orders: %w", len(o.Active), frame.ErrDamaged)
	}
	seen := make(map[ID]bool, len(o.Active))
	for i, a := range o.Active {
		if err := a.validate(); err != nil {
			return fmt.Errorf("halt: order %s: %w: %w", a.ID.Short(), err, frame.ErrDamaged)
		}
		if seen[a.ID] || i > 0 && compare(o.Active[i-1], a) >= 0 {
			return fmt.Errorf("halt: order %s: out of order: %w", a.ID.Short(), frame.ErrDamaged)
		}
		seen[a.ID] = true
	}
	return nil
}

func (o *Order) validate() error {
	switch o.Scope {
	case All:
		if o.Value != "" {
			return errors.New("all takes no value")
		}
	case Region, Domain, Site, Channel:
		if o.Value == "" {
			return fmt.Errorf("%s needs a value", o.Scope)
		}
	default:
		return fmt.Errorf("unknown scope %q", o.Scope)
	}
	if o.ID.IsZero() {
		return errors.New("no id")
	}
	if len(o.Value) > MaxValue || len(o.Reason) > MaxReason || len(o.By) > MaxValue || o.At < 0 {
		return errors.New("text or time out of bounds")
	}
	// The texts are shown on terminals, which interpret control characters.
	if strings.ContainsFunc(o.Value+o.Reason+o.By, unicode.IsControl) {
		return errors.New("holds a control character")
	}
	return nil
}
