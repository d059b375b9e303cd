package query

import "time"

// Rehearsal is the clock that the calendar is followed by in a rehearsal.
type Rehearsal struct {
	Time  time.Time `json:"time"`
	Speed int64     `json:"speed"`
}
