package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// The kinds of problems that a site reports; docs/agent.md lists them.
const (
	ProblemSpool      = spool.CorruptProblem
	ProblemClock      = "clock"      // two of site's, Core's and store's clocks are far apart
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

// reportProblem reports one, if it is not reported already. A full disk must not end
// the agent for that.
func (c *session) reportProblem(ctx context.Context, kind, channel, text string) error {
	return c.recordProblem(ctx, wire.Problem{Kind: kind, Text: text, Since: c.o.Now().Unix()}, channel)
}

func (c *session) resolveProblem(ctx context.Context, kind, channel string) error {
	return c.recordProblem(ctx, wire.Problem{Kind: kind, Resolved: true}, channel)
}

func (c *session) recordProblem(ctx context.Context, p wire.Problem, channel string) error {
	err := c.spool.Problem(ctx, p, channel)
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, spool.ErrFull) {
		c.logNote(Error, channel, "a problem cannot be kept: "+p.Text, err)
		return nil
	}
	c.report.wake()
	return err
}

// clockSkew returns how far the clocks are apart, and which.
func (c *session) clockSkew() (time.Duration, string) {
	core, store := c.coreClock.get().Abs(), c.storeClock.get().Abs()
	if store > core {
		return store, "the store's"
	}
	return core, "the Core's"
}

// clockRetries is after how many times Retry clocks that stop everything are
// compared again.
const clockRetries = 4

// unknownSkew stands for clocks that this process has not compared yet. Nothing
// starts then: the site's clock may be the wrong one.
const unknownSkew = time.Duration(math.MaxInt64)

// skewKnown returns how far the clocks are apart, or unknownSkew.
func (c *session) skewKnown() time.Duration {
	if !c.coreClock.known.Load() && !c.storeClock.known.Load() {
		return unknownSkew
	}
	d, _ := c.clockSkew()
	return d
}

// clocksAgain returns how far the clocks are apart. While that stops
// everything, it compares them again: nothing else would, and a clock that was
// set right, or a cache with an old date, must not stop the site for good.
func (c *session) clocksAgain(ctx context.Context, now time.Time) (time.Duration, error) {
	d := c.skewKnown()
	if d <= wrong || now.Sub(c.compared).Abs() < clockRetries*c.o.Retry {
		return d, nil
	}
	c.compared = now
	date, err := storeTime(ctx, c.id.Store, c.o.Env)
	switch {
	case err != nil:
		c.logNote(Warning, "", "the store's answer has no usable time", err)
	case !date.IsZero():
		c.storeClock.set(date, c.o.Now())
	}
	c.hello.wake() // the Core answers with its own
	if err := c.checkClocks(ctx); err != nil {
		return d, err
	}
	return c.skewKnown(), nil
}

// checkClocks reports clocks that are too far apart, or no longer.
func (c *session) checkClocks(ctx context.Context) error {
	d, whose := c.clockSkew()
	if d <= askew {
		return c.resolveProblem(ctx, ProblemClock, "")
	}
	text := fmt.Sprintf("this site's clock and %s are %s apart: set this machine's clock (time service)", whose, d.Round(time.Second))
	if d > wrong {
		text += "; nothing starts until then"
	}
	return c.reportProblem(ctx, ProblemClock, "", text)
}
