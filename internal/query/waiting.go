package query

import (
	"time"

	"nightferry/internal/wire"
)

// Reasons of Waiting that the Core finds by itself.
const (
	waitsAway        = "away"
	waitsUnconfirmed = "unconfirmed"
)

// waitingReason returns why a channel of the site has not started its wanted run.
func (s *SiteStatus) waitingReason(ch *ChannelStatus, waits map[string]Waiting) *Waiting {
	w, told := waits[ch.Channel]
	switch {
	case ch.State == "running" || ch.Wants == 0 || s.Enrolled.IsZero():
		return nil
	case ch.State == "current" && s.Revision >= s.Wanted && !told:
		return nil
	case !s.Connected:
		return &Waiting{Why: waitsAway}
	case s.Revision < s.Wanted:
		return &Waiting{Why: waitsUnconfirmed}
	case told:
		return &w
	}
	return nil
}

// whyTexts are the reasons in plain words.
var whyTexts = map[string]string{
	waitsAway:                   "the site is not connected",
	waitsUnconfirmed:            "the site has not confirmed its newest desired state yet",
	wire.WhyUnreadable.String(): "the site cannot read its windows",
	wire.WhyRefused.String():    "the site does not allow the target",
	wire.WhyClock.String():      "clocks must be compared first",
	wire.WhyHalted.String():     "halted",
	wire.WhySilent.String():     "the site can read halt orders neither from the Core nor from the store",
	wire.WhyWindow.String():     "the window is closed",
	wire.WhyRate.String():       "the rate is 0",
	wire.WhyRetry.String():      "the last run failed and is tried again",
	wire.WhyLifted.String():     "a halt was lifted, and starts are spread",
	wire.WhyTurn.String():       "other channels of the site have their turn before",
}

// String is the reason for people, in one line.
func (w *Waiting) String() string {
	text := whyTexts[w.Why]
	if !w.Until.IsZero() {
		text += " until " + w.Until.Format(time.RFC3339)
	}
	if w.Text != "" {
		text += ": " + w.Text
	}
	return text
}
