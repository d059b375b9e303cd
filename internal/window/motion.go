package window

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxSpeed bounds a Motion. It is about 2.8 hours per second; nothing useful can
// be observed in a faster one.
const MaxSpeed = 10_000

// Motion is the time of a rehearsal: a clock that shows To at the real time
// From and runs Speed times as fast afterwards. Before From it runs at the
// normal speed. The zero Motion is no rehearsal: it shows the real time.
//
// Windows, timetables and cadences use the shown time. Everything that
// protects something, such as signatures, credentials and URL expiry, uses
// the real time.
type Motion struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Speed int64     `json:"speed"` // 1 to MaxSpeed; 0: no rehearsal
}

// ParseMotion reads START@SPEED, such as 2026-03-28T18:00:00Z@720: a
// rehearsal that starts at the real time now. START may be the word now.
func ParseMotion(text string, now time.Time) (Motion, error) {
	start, speed, ok := strings.Cut(text, "@")
	m := Motion{From: now, To: now}
	var err error
	if start != "now" {
		m.To, err = time.Parse(time.RFC3339, start)
	}
	n, nerr := strconv.ParseInt(speed, 10, 64)
	if !ok || err != nil || nerr != nil || n < 1 || n > MaxSpeed {
		return Motion{}, fmt.Errorf("%q: want START@SPEED, such as 2026-03-28T18:00:00Z@720 or now@60, with a speed from 1 to %d", text, MaxSpeed)
	}
	m.Speed = n
	return m, nil
}

// On reports whether it is a rehearsal.
func (m Motion) On() bool { return m.Speed > 0 }

// At returns the time shown at the real time t.
func (m Motion) At(t time.Time) time.Time {
	if !m.On() || t.IsZero() {
		return t
	}
	d := t.Sub(m.From)
	if d > 0 {
		d *= time.Duration(m.Speed)
	}
	return m.To.Add(d).In(t.Location())
}

// When returns the real time at which shown is shown. The zero time, which
// means never, stays zero.
func (m Motion) When(shown time.Time) time.Time {
	if !m.On() || shown.IsZero() {
		return shown
	}
	d := shown.Sub(m.To)
	if d > 0 {
		d /= time.Duration(m.Speed)
	}
	return m.From.Add(d).In(shown.Location())
}

// Real returns how much real time passes while the clock advances by shown.
func (m Motion) Real(shown time.Duration) time.Duration {
	if !m.On() {
		return shown
	}
	return shown / time.Duration(m.Speed)
}
