package apply

import (
	"errors"
	"fmt"
	"sync"

	"nightferry/internal/repo"
)

// reporter counts and emits the events of a run.
type reporter struct {
	onEvent func(Event) // nil: none
	settles bool        // outcomes that were not intended are kept
	began   int64       // Unix seconds

	mu    sync.Mutex // events, res
	res   Result
	other []Event // for Options.Settle
}

// emit counts an event and passes it to the caller, one at a time.
func (r *reporter) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == FileEvent {
		r.res.Add(e.Outcome)
	}
	if r.onEvent != nil {
		r.onEvent(e)
	}
}

// emitUnexpected emits an outcome that differs from the intended one and keeps it for Settle.
func (r *reporter) emitUnexpected(e Event) {
	e.Committed = true
	r.emit(e)
	if r.settles {
		r.other = append(r.other, e)
	}
}

// resetProofs resets the counts.
func (r *reporter) resetProofs() {
	r.res.ReadFiles, r.res.ReadBytes, r.res.StatedFiles, r.res.OldestRead = 0, 0, 0, 0
}

// countProof counts a file that matches the release.
func (r *reporter) countProof(size, checked int64) {
	if checked >= r.began {
		r.res.ReadFiles++
		r.res.ReadBytes += size
	} else {
		r.res.StatedFiles++
	}
	if r.res.ReadFiles+r.res.StatedFiles == 1 || checked < r.res.OldestRead {
		r.res.OldestRead = checked
	}
}

func (r *reporter) emitPhase(name string) { r.emit(Event{Kind: PhaseEvent, Phase: name}) }

func (r *reporter) emitRetry(err error) {
	if a := (*repo.ArrivalError)(nil); errors.As(err, &a) {
		r.mu.Lock()
		r.res.Damaged++
		r.mu.Unlock()
	}
	r.emit(Event{Kind: RetryEvent, Cause: err})
}

// emitAside reports that a damaged file of our own is kept as to; "": it held nothing.
func (r *reporter) emitAside(name, to string, why error) {
	if to == "" {
		r.emitRetry(fmt.Errorf("%q is made anew: %w", name, why))
		return
	}
	r.emitRetry(fmt.Errorf("%q is set aside as %q and made anew: %w", name, to, why))
}
