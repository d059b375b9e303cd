package agent

import (
	"context"
	"errors"
	"testing"

	"nightferry/internal/bus"
)

// TestOwnErrorEndsIt: an agent that cannot go on says so, or no service manager
// would start it again.
func TestOwnErrorEndsIt(t *testing.T) {
	w := newWorld(t)
	o := options(w.enrolled(), t.Logf)
	broken := errors.New("broken for the test")
	o.Dial = func(ctx context.Context, b bus.ClientOptions) (Bus, error) {
		c, err := Dial(ctx, b)
		return brokenBus{c, broken}, err
	}
	if err := Run(t.Context(), o); !errors.Is(err, broken) {
		t.Errorf("it ends with %v", err)
	}
}

type brokenBus struct {
	Bus
	err error
}

func (b brokenBus) Publish(string, []byte) error { return b.err }
