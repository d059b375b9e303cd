// Package clock gives every clock that nightferry reads its own type, so that
// the compiler refuses to compare the time of one with the time of another.
//
// There are three clocks. Local is this machine's clock: it measures
// durations, and may be wrong. Store is the store's clock: signatures,
// credentials and deletion by age use it. Calendar is the clock of windows,
// cadences and records: it shows the store's time, unless a rehearsal changes
// it.
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

// Time is a moment on one of the clocks. The zero Time means never.
type Time[C local | store | calendar] struct{ t time.Time }

// LocalAt returns a reading of this machine's clock. It keeps the monotonic
// reading, so that a step of the clock does not change measured durations.
func LocalAt(t time.Time) Local { return Local{t} }

// StoreAt returns a reading of the store's clock.
func StoreAt(t time.Time) Store { return Store{t.Round(0)} }

// CalendarAt returns a reading of the calendar.
func CalendarAt(t time.Time) Calendar { return Calendar{t.Round(0)} }

// Time returns the moment without its clock, for messages and records.
func (a Time[C]) Time() time.Time { return a.t }

// Unix returns the moment in whole seconds since 1970, for what is signed or
// stored.
func (a Time[C]) Unix() int64 { return a.t.Unix() }

// Add returns the moment d later.
func (a Time[C]) Add(d time.Duration) Time[C] { return Time[C]{a.t.Add(d)} }

// Sub returns the duration from b to a.
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

// Due reports whether a periodic task, last done at last, is due. It is also
// due if last is in the future: then the clock was set back, and waiting for
// that time would stop the task.
func Due[C local | store | calendar](last, now Time[C], period time.Duration) bool {
	return Passed(last.t, now.t, period)
}

// Passed is Due for two times of the same clock that are stored without it.
func Passed(last, now time.Time, period time.Duration) bool {
	age := now.Sub(last)
	return last.IsZero() || age < 0 || age >= period
}
