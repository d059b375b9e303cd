package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// The kinds of problems that a site reports; docs/agent.md lists them.
const (
	ProblemSpool      = spool.CorruptProblem
	ProblemClock      = "clock"      // two of site's, Core's and store's clocks are far apart
	ProblemTarget     = "target"     // a target that this site does not allow, or that lost its release
	ProblemStore      = "store"      // content cannot be fetched
	ProblemLine       = "line"       // content arrives damaged
	ProblemDisk       = "disk"       // a disk is full
	ProblemRepository = "repository" // what the store gives is not what the Core's keys vouch for
	ProblemControl    = "control"    // a message in the Core's name was refused
)

// Problems lists the kinds.
func Problems() []string {
	return wire.ProblemKinds
}

const (
	// askew is how far clocks may be apart, and wrong is how far they may be
	// apart for anything to start.
	askew = 2 * time.Minute
	wrong = 15 * time.Minute
)

// problem reports one, if it is not reported already. A full disk must not end
// the agent for that.
func (a *agent) problem(ctx context.Context, kind, channel, text string) error {
	return a.tellProblem(ctx, wire.Problem{Kind: kind, Text: text, Since: a.o.Now().Unix()}, channel)
}

func (a *agent) over(ctx context.Context, kind, channel string) error {
	return a.tellProblem(ctx, wire.Problem{Kind: kind, Over: true}, channel)
}

func (a *agent) tellProblem(ctx context.Context, p wire.Problem, channel string) error {
	err := a.spool.Problem(ctx, p, channel)
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, spool.ErrFull) {
		a.note(Error, channel, "a problem cannot be kept: "+p.Text, err)
		return nil
	}
	a.report.wake()
	return err
}

// skew returns how far the clocks are apart, and which.
func (a *agent) skew() (time.Duration, string) {
	core, store := a.coreClock.get().Abs(), a.storeClock.get().Abs()
	if store > core {
		return store, "the store's"
	}
	return core, "the Core's"
}

// clockRetries is after how many times Retry clocks that stop everything are
// compared again.
const clockRetries = 4

// clocksAgain returns how far the clocks are apart. While that stops
// everything, nothing would measure it again: so it does, that nobody who has
// set a clock, and no cache that has told an old date, stops the site for good.
func (a *agent) clocksAgain(ctx context.Context, now time.Time) (time.Duration, error) {
	d, _ := a.skew()
	if d <= wrong || now.Sub(a.compared).Abs() < clockRetries*a.o.Retry {
		return d, nil
	}
	a.compared = now
	date, err := storeTime(ctx, a.id.Store, a.o.Env)
	switch {
	case err != nil:
		a.note(Warning, "", "the store does not tell the time", err)
	case !date.IsZero():
		a.storeClock.set(date, a.o.Now())
	}
	a.hello.wake() // the Core answers with its own
	if err := a.clocks(ctx); err != nil {
		return d, err
	}
	d, _ = a.skew()
	return d, nil
}

// clocks reports clocks that are too far apart, or no longer.
func (a *agent) clocks(ctx context.Context) error {
	d, whose := a.skew()
	if d <= askew {
		return a.over(ctx, ProblemClock, "")
	}
	text := fmt.Sprintf("this site's clock and %s are %s apart: set this machine's clock (time service)", whose, d.Round(time.Second))
	if d > wrong {
		text += "; nothing starts until then"
	}
	return a.problem(ctx, ProblemClock, "", text)
}
