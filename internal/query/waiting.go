package query

import (
	"cmp"
	"fmt"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/wire"
)

// Reasons of Waiting that the Core finds by itself.
const (
	waitsAway        = "away"
	waitsUnconfirmed = "unconfirmed"
)

// waitingReason returns why a channel of the site has not started its wanted run, or why that run waits. The agent knows
// best; of a channel about which it has sent nothing, the configuration's windows and rates are known.
func (v *Service) waitingReason(s *fleet.Site, st *SiteStatus, ch *ChannelStatus, waits map[string]Waiting) *Waiting {
	w, told := waits[ch.Channel]
	behind := ch.State != Running && ch.Holds != ch.Wants
	switch {
	case ch.Wants == 0 || st.Enrolled.IsZero():
		return nil
	case ch.State == Current && st.Revision >= st.Wanted && !told:
		return nil
	case !st.Connected:
		return &Waiting{Why: waitsAway, Since: st.Seen}
	case ch.State == Running && !told:
		return nil
	case st.Revision < st.Wanted:
		return &Waiting{Why: waitsUnconfirmed}
	case told:
		return &w
	case !behind:
		return nil
	}
	now := v.o.Wall()
	if opens := v.o.World().Nights.Opens(s.Name, ch.Channel, now); !opens.IsZero() {
		return &Waiting{Why: wire.WhyWindow.String(), Until: opens}
	}
	if rate, until := v.ratesOf(s, wire.Address{Domain: s.Domain, Site: s.Name}, now).Rate(now, s.Location); rate == 0 {
		return &Waiting{Why: wire.WhyRate.String(), Until: until}
	}
	return nil
}

// state is the state of a channel that waits.
func (w *Waiting) state() string {
	switch w.Why {
	case waitsAway:
		return stateAway
	case wire.WhyHalted.String():
		return stateHalted
	case wire.WhyWindow.String(), wire.WhyRate.String():
		return stateWaiting
	case waitsUnconfirmed, wire.WhyLifted.String(), wire.WhyTurn.String():
		return stateDue
	}
	return stateFailing
}

// label is the reason in a few words, for a column.
func (w *Waiting) label() string {
	text := w.Why
	switch w.Why {
	case wire.WhyRate.String():
		text = "rate is 0"
	case wire.WhyRetry.String():
		text = "retries"
	case wire.WhySpace.String():
		text = "no space"
	case wire.WhyURL.String():
		text = "no URL"
	case wire.WhyClock.String():
		text = "clock unsure"
	case wire.WhyRefused.String():
		text = "target refused"
	case wire.WhyTurn.String():
		return cmp.Or(w.Text, "waits its turn")
	case wire.WhyLifted.String():
		text = "halt lifted, starts"
	}
	if !w.Until.IsZero() {
		text += " " + w.Until.UTC().Format("01-02 15:04Z")
	}
	return text
}

// waitRemedy names the command that helps.
func waitRemedy(w *Waiting, site, channel string) string {
	switch w.Why {
	case wire.WhyWindow.String():
		return fmt.Sprintf("nightferry sync --site %s --channel %s --now does not wait", site, channel)
	case wire.WhyRate.String():
		return "nightferry limit shows and changes it"
	case wire.WhySpace.String():
		return "free space on the volume that the cause names; it is tried again by itself"
	case wire.WhyClock.String():
		return "set the clock of that server right, and see that it reaches the Core or the store"
	case wire.WhyRefused.String():
		return "allow the target in the agent's configuration on that server, or correct it in the Core's"
	}
	return fmt.Sprintf("nightferry runs --site %s --channel %s shows the last runs", site, channel)
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
	wire.WhySpace.String():      "a volume of the site is full",
	wire.WhyURL.String():        "the Core has not lent the URLs that the run needs",
}

// String is the reason for people, in one line.
func (w *Waiting) String() string {
	text := whyTexts[w.Why]
	if !w.Since.IsZero() {
		text += " since " + w.Since.UTC().Format(time.RFC3339)
	}
	if !w.Until.IsZero() {
		text += " until " + w.Until.Format(time.RFC3339)
	}
	if w.Text != "" {
		text += ": " + w.Text
	}
	return text
}
