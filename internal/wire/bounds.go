package wire

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"nightferry/internal/halt"
	"nightferry/internal/runs"
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
var ProblemKinds = []string{"spool", "clock", "target", "store", "line", "disk", "repository", "control"}

// verdicts lists the final states that a site may report for a run.
var verdicts = []runs.State{runs.Verified, runs.Different, runs.Incomplete, runs.Planned, runs.Failed, runs.Stopped, runs.Refused}

// bounded is a message or event body sent by a site.
type bounded interface{ bound(*bounds) }

// checkBounds returns an error for values that are out of bounds, and shortens and cleans texts.
func checkBounds(v any) error {
	m, ok := v.(bounded)
	if !ok {
		return nil
	}
	var b bounds
	m.bound(&b)
	return b.err
}

// bounds collects the error for the first value that is out of bounds.
type bounds struct{ err error }

func (b *bounds) fail(what string, value any) {
	if b.err == nil {
		b.err = fmt.Errorf("%s %v is out of bounds", what, value)
	}
}

func (b *bounds) counts(what string, list ...int64) {
	for _, n := range list {
		if n < 0 || n > MaxCount {
			b.fail(what, n)
		}
	}
}

func (b *bounds) numbers(what string, list ...uint64) {
	for _, n := range list {
		if n > maxNumber {
			b.fail(what, n)
		}
	}
}

func (b *bounds) seconds(what string, list ...int64) {
	for _, t := range list {
		if t < 0 || t > maxTime {
			b.fail(what, t)
		}
	}
}

func (b *bounds) millis(what string, list ...int64) {
	for _, t := range list {
		if t < 0 || t > maxTime*1000 {
			b.fail(what, t)
		}
	}
}

func (b *bounds) word(what string, s string, of []string) {
	if !slices.Contains(of, s) {
		b.fail(what, fmt.Sprintf("%.64q", s))
	}
}

func (b *bounds) length(what string, n, most int) {
	if n > most {
		b.fail(what, n)
	}
}

// channel accepts a channel's name or an empty string.
func (b *bounds) channel(s string) {
	if s != "" && !ValidName(s) {
		b.fail("channel", fmt.Sprintf("%.64q", s))
	}
}

// Text makes a site's text safe to display: at most 4 KiB, without control characters, line separators and marks of the
// reading direction.
func Text(s string) string { return text(s, maxTexts) }

// text replaces characters that a terminal or browser would interpret, and cuts the result to most bytes, because the
// replacements can make it longer.
func text(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return unicode.ReplacementChar
		}
		return r
	}, s[:min(len(s), most)])
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

func (v *Hello) bound(b *bounds) {
	v.Version, v.System, v.Machine = text(v.Version, maxWord), text(v.System, maxWord), text(v.Machine, MaxMachine)
	b.millis("time", v.At)
	b.length("length of an instance", len(v.Instance), maxInstance)
	b.skew(v.StoreClock)
	b.numbers("number", v.Trust, v.Revision, v.Epoch)
	b.length("number of held releases", len(v.Holds), maxHolds)
	for _, h := range v.Holds {
		b.channel(h.Channel)
		b.numbers("release", h.Number)
		b.seconds("time", h.Verified)
	}
}

// maxHolds bounds the channels of a site.
const maxHolds = 1024

// skew accepts the possible differences between two clocks.
func (b *bounds) skew(ms int64) { b.millis("clock offset", max(ms, -ms)) }

func (v *Beat) bound(b *bounds) {
	b.millis("time", v.At)
	b.skew(v.StoreClock)
	b.numbers("number", v.Trust, v.Revision, v.Epoch)
	b.counts("number of events", int64(min(v.Spooled, maxNumber)))
	b.length("length of an instance", len(v.Instance), maxInstance)
	b.length("number of waits", len(v.Waits), MaxWaits)
	for i := range v.Waits {
		w := &v.Waits[i]
		b.channel(w.Channel)
		b.seconds("time", w.Until)
		w.Text = text(w.Text, MaxWaitText)
	}
}

// maxInstance is the length of an agent's instance in bytes.
const maxInstance = 16

func (v *Stopped) bound(b *bounds) {
	b.numbers("number", v.Number, v.Epoch)
	b.length("number of halt orders", len(v.Orders), MaxStops)
	b.length("size of the halt object", len(v.Object), halt.Max)
	for i := range v.Orders {
		o := &v.Orders[i]
		b.millis("time", o.Heard, o.At)
		b.counts("bytes", o.Bytes)
		o.By, o.Reason = text(o.By, 256), text(o.Reason, maxTexts)
	}
}

func (v *Progress) bound(b *bounds) {
	b.channel(v.Channel)
	v.Phase = text(v.Phase, maxWord)
	b.counts("count", v.FilesDone, v.FilesTotal, v.BytesDone, v.BytesTotal, v.BytesWire)
}

func (v *Ask) bound(b *bounds) { b.length("number of keys", len(v.Keys), MaxAsk) }

func (v *Renew) bound(b *bounds) { b.millis("time", v.At) }

func (v *Enrol) bound(*bounds) {
	v.Version, v.System = text(v.Version, maxWord), text(v.System, maxWord)
}

// bound does not check the times and bodies of events. They are checked one by one, so that an invalid event does not
// block the others.
func (v *Report) bound(b *bounds) {
	b.numbers("sequence", v.First)
	b.length("number of events", len(v.Events), MaxEvents)
}

func (v *Started) bound(b *bounds) {
	b.numbers("number", v.Number, v.Parent, v.Start)
	v.Trigger = text(v.Trigger, maxWord)
}

func (v *Finished) bound(b *bounds) {
	if !slices.Contains(verdicts, v.Verdict) {
		b.fail("verdict", fmt.Sprintf("%.64q", v.Verdict))
	}
	v.Error = text(v.Error, maxTexts)
	b.counts("count", v.Added, v.Changed, v.Moved, v.Repaired, v.Deleted, v.Unchanged, v.Locked, v.Extra, v.Failed,
		v.Differs, v.Files, v.Bytes, v.Wire, v.Fetched, v.Held)
}

func (v *Problem) bound(b *bounds) {
	b.word("kind", v.Kind, ProblemKinds)
	v.Text = text(v.Text, maxTexts)
	b.seconds("time", v.Since)
}

func (v *Attestation) bound(b *bounds) {
	b.channel(v.Channel)
	b.counts("count", v.Files, v.Bytes, v.ReadFiles, v.ReadBytes, v.StatedFiles)
	b.seconds("time", v.OldestRead, v.At)
}
