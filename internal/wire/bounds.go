package wire

import (
	"fmt"
	"slices"

	"nightferry/internal/halt"
	"nightferry/internal/runs"
	"nightferry/internal/text"
)

// Bounds of the values that a site may send. The Core accepts no others, because each of these could break a view or a
// table for all sites: an impossible date, a count that overflows a sum, a text that changes the reading direction.
const (
	// MaxCount bounds counts and sizes in bytes. A sum of 4096 of them still fits in an int64.
	MaxCount = 1 << 50
	// maxNumber bounds sequence numbers, because the ledger stores signed integers.
	maxNumber = 1 << 62
	// maxTime is 1 January 2200 in Unix seconds.
	maxTime = 7_258_118_400

	maxWord  = 64       // bytes of a version, a phase, a kind
	maxTexts = 4 << 10  // bytes of an error or a reason
	maxPath  = 96 << 10 // bytes of a path: 32767 characters, the longest on Windows
)

// ProblemKinds are the kinds of Problem; docs/agent.md lists them.
var ProblemKinds = []string{"spool", "clock", "store", "line", "disk", "repository", "control"}

// verdicts lists the final states that a site may report for a run.
var verdicts = []runs.State{runs.Verified, runs.Different, runs.Incomplete, runs.Unowned, runs.Planned, runs.Failed, runs.Stopped, runs.Refused, runs.Emptied, runs.Unreadable}

// bounded is a message or event body sent by a site.
type bounded interface{ checkBounds(*bounds) }

// checkBounds returns an error for values that are out of bounds, and shortens and cleans texts.
func checkBounds(v any) error {
	m, ok := v.(bounded)
	if !ok {
		return nil
	}
	var b bounds
	m.checkBounds(&b)
	return b.err
}

// bounds collects the error for the first value that is out of bounds.
type bounds struct{ err error }

func (b *bounds) failBound(what string, value any) {
	if b.err == nil {
		b.err = fmt.Errorf("%s %v is out of bounds", what, value)
	}
}

func (b *bounds) checkCounts(what string, list ...int64) {
	for _, n := range list {
		if n < 0 || n > MaxCount {
			b.failBound(what, n)
		}
	}
}

func (b *bounds) checkNumbers(what string, list ...uint64) {
	for _, n := range list {
		if n > maxNumber {
			b.failBound(what, n)
		}
	}
}

func (b *bounds) checkSeconds(what string, list ...int64) {
	for _, t := range list {
		if t < 0 || t > maxTime {
			b.failBound(what, t)
		}
	}
}

func (b *bounds) checkMillis(what string, list ...int64) {
	for _, t := range list {
		if t < 0 || t > maxTime*1000 {
			b.failBound(what, t)
		}
	}
}

func (b *bounds) checkWord(what string, s string, of []string) {
	if !slices.Contains(of, s) {
		b.failBound(what, fmt.Sprintf("%.64q", s))
	}
}

func (b *bounds) checkLength(what string, n, most int) {
	if n > most {
		b.failBound(what, n)
	}
}

// checkChannel accepts a channel's name or an empty string.
func (b *bounds) checkChannel(s string) {
	if s != "" && !ValidName(s) {
		b.failBound("channel", fmt.Sprintf("%.64q", s))
	}
}

// Text makes a site's text safe to display: at most 4 KiB, without control characters, line separators and marks of the
// reading direction.
func Text(s string) string { return text.Clean(s, maxTexts) }

func (v *Hello) checkBounds(b *bounds) {
	v.Version, v.System, v.Machine = text.Clean(v.Version, maxWord), text.Clean(v.System, maxWord), text.Clean(v.Machine, MaxMachine)
	b.checkMillis("time", v.At)
	b.checkLength("length of an instance", len(v.Instance), maxInstance)
	b.checkLength("length of a lineage", len(v.Lineage), maxInstance)
	b.checkLength("length of the record of starts", len(v.Started), StartID*MaxStarted)
	b.checkSkew(v.StoreClock)
	b.checkNumbers("number", v.Trust, v.Revision, v.Epoch, v.Starts)
	b.checkHolds(v.Holds, v.Spooled)
}

func (b *bounds) checkHolds(list []Held, spooled uint64) {
	b.checkCounts("number of events", int64(min(spooled, maxNumber)))
	b.checkLength("number of held releases", len(list), maxHolds)
	for _, h := range list {
		b.checkChannel(h.Channel)
		b.checkNumbers("release", uint64(h.Number))
		b.checkSeconds("time", h.Verified)
	}
}

// maxHolds bounds the channels of a site.
const maxHolds = 1024

// checkSkew accepts the possible differences between two clocks.
func (b *bounds) checkSkew(ms int64) { b.checkMillis("clock offset", max(ms, -ms)) }

func (v *Beat) checkBounds(b *bounds) {
	b.checkMillis("time", v.At)
	b.checkSkew(v.StoreClock)
	b.checkNumbers("number", v.Trust, v.Revision, v.Epoch)
	b.checkHolds(v.Holds, v.Spooled)
	b.checkLength("length of an instance", len(v.Instance), maxInstance)
	b.checkLength("number of waits", len(v.Waits), MaxWaits)
	for i := range v.Waits {
		w := &v.Waits[i]
		b.checkChannel(w.Channel)
		b.checkSeconds("time", w.Until)
		w.Text = text.Clean(w.Text, MaxWaitText)
	}
}

// maxInstance is the length of an agent's instance in bytes.
const maxInstance = 16

func (v *Stopped) checkBounds(b *bounds) {
	b.checkNumbers("number", v.Number, v.Epoch)
	b.checkLength("number of halt orders", len(v.Orders), MaxStops)
	b.checkLength("size of the halt object", len(v.Object), halt.Max)
	b.checkLength("length of an instance", len(v.Instance), maxInstance)
	for i := range v.Orders {
		o := &v.Orders[i]
		b.checkMillis("time", o.Heard, o.At)
		b.checkCounts("bytes", o.Bytes)
		b.checkMillis("age of a stop", o.Ago)
		o.By, o.Reason = text.Clean(o.By, 256), text.Clean(o.Reason, maxTexts)
	}
}

func (v *Progress) checkBounds(b *bounds) {
	b.checkChannel(v.Channel)
	v.Phase = text.Clean(v.Phase, maxWord)
	b.checkCounts("count", v.FilesDone, v.FilesTotal, v.BytesDone, v.BytesTotal, v.BytesWire)
}

func (v *Ask) checkBounds(b *bounds) { b.checkLength("number of keys", len(v.Keys), MaxAsk) }

func (v *Renew) checkBounds(b *bounds) { b.checkMillis("time", v.At) }

func (v *Enrol) checkBounds(*bounds) {
	v.Version, v.System = text.Clean(v.Version, maxWord), text.Clean(v.System, maxWord)
}

// checkBounds does not check the times and bodies of events. They are checked one by one, so that an invalid event does not
// block the others.
func (v *Report) checkBounds(b *bounds) {
	b.checkNumbers("sequence", v.First)
	b.checkLength("number of events", len(v.Events), MaxEvents)
}

func (v *Started) checkBounds(b *bounds) {
	b.checkNumbers("number", uint64(v.Number), uint64(v.Parent), v.Start)
	v.Trigger = text.Clean(v.Trigger, maxWord)
}

func (v *Finished) checkBounds(b *bounds) {
	if !slices.Contains(verdicts, v.Verdict) {
		b.failBound("verdict", fmt.Sprintf("%.64q", v.Verdict))
	}
	v.Error = text.Clean(v.Error, maxTexts)
	b.checkLength("length of a target", len(v.Filled.Target), maxPath)
	b.checkLength("length of a volume", len(v.Filled.Volume), maxPath)
	b.checkLength("length of a machine", len(v.Filled.Machine), MachineSize)
	b.checkCounts("count", v.Added, v.Changed, v.Moved, v.Repaired, v.Deleted, v.Unchanged, v.Locked, v.Extra, v.Failed,
		v.Differs, v.Files, v.Bytes, v.Wire, v.Fetched, v.Held)
}

func (v *Problem) checkBounds(b *bounds) {
	b.checkWord("kind", v.Kind, ProblemKinds)
	v.Text = text.Clean(v.Text, maxTexts)
	b.checkSeconds("time", v.Since)
}

func (v *Attestation) checkBounds(b *bounds) {
	b.checkChannel(v.Channel)
	b.checkCounts("count", v.Files, v.Bytes, v.ReadFiles, v.ReadBytes, v.StatedFiles)
	b.checkSeconds("time", v.OldestRead, v.At)
}
