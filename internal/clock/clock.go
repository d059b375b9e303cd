// Package clock gives every clock that nightferry reads a type of its own, so
// that the compiler refuses to compare the time of one with the time of
// another.
//
// Three clocks count. Local is this machine's: it measures how long something
// takes, and may be wrong. Store is the store's: signatures, credentials and
// everything that is deleted by its age follow it. Calendar is what windows,
// cadences and records follow: the store's time, unless a rehearsal moves it.
package clock

import "time"

type (
	local    struct{}
	store    struct{}
	calendar struct{}
)

// The clocks.
type (
	Local    = Time[local]
	Store    = Time[store]
	Calendar = Time[calendar]
)

// Time is a moment as one clock shows it. The zero Time means never.
type Time[C local | store | calendar] struct{ t time.Time }

// LocalAt is a reading of this machine's clock. It keeps the monotonic reading,
// by which a step of the clock does not change how long something took.
func LocalAt(t time.Time) Local { return Local{t} }

// StoreAt is a reading of the store's clock.
func StoreAt(t time.Time) Store { return Store{t.Round(0)} }

// CalendarAt is a reading of the calendar.
func CalendarAt(t time.Time) Calendar { return Calendar{t.Round(0)} }

// Time returns the moment without its clock, for messages and records.
func (a Time[C]) Time() time.Time { return a.t }

// Add returns the moment d later.
func (a Time[C]) Add(d time.Duration) Time[C] { return Time[C]{a.t.Add(d)} }

// Sub returns how long a is after b.
func (a Time[C]) Sub(b Time[C]) time.Duration { return a.t.Sub(b.t) }

// Before reports whether a is before b.
func (a Time[C]) Before(b Time[C]) bool { return a.t.Before(b.t) }

// IsZero reports whether a means never.
func (a Time[C]) IsZero() bool { return a.t.IsZero() }

// Clamp returns the moment from lo to hi that is closest to a.
func Clamp[C local | store | calendar](a, lo, hi Time[C]) Time[C] {
	switch {
	case a.Before(lo):
		return lo
	case hi.Before(a):
		return hi
	}
	return a
}

// Due reports whether what was done last is to be done again. A last time in
// the future is due: the clock has been set back since, and waiting for it to
// come so far again would stop the task.
func Due[C local | store | calendar](last, now Time[C], period time.Duration) bool {
	return Passed(last.t, now.t, period)
}

// Passed is Due for times that were kept without their clock, both of the same.
func Passed(last, now time.Time, period time.Duration) bool {
	age := now.Sub(last)
	return last.IsZero() || age < 0 || age >= period
}
