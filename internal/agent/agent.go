// Package agent is the daemon of a site. It dials the Core, brings every
// channel to its desired release, and reports the outcome of every file.
//
// The Core's messages are level-triggered: only the newest signed State counts.
// The agent makes it durable before acting on it, as it does with newer trust
// documents; halts take effect first. Package spool makes the site's job data
// durable before the agent sends it. The agent resends it until the Core has
// acknowledged it.
//
// The invariant of a run: each entry of the release has exactly one outcome in
// the run's events, or is counted as unchanged, however often the process was
// killed on the way. A run is recorded before package apply starts. Before
// apply writes its journal, the outcomes are in the spool as intended; before
// it removes the journal, they are in the spool as settled. The end of the run
// moves the settled outcomes to the events, with the event Finished, in one
// transaction. A process that finds an open run continues it under the same id.
// apply rolls the journal forward, which settles the intended outcomes, and
// then finds those entries unchanged.
package agent

import (
	"context"
	"errors"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
)

// Bus is the agent's connection to the Core.
type Bus interface {
	// Publish sends data that may be lost. It keeps nothing while disconnected.
	Publish(subject string, data []byte) error
	Subscribe(subject string, handler func(subject string, data []byte)) error
	Flush(ctx context.Context) error
	// SetURLs replaces the addresses that the next attempt to connect uses.
	SetURLs(urls []string) error
	// Close waits for handlers.
	Close()
}

// DialFunc connects to the Core. It is bus.Dial except in tests.
type DialFunc func(ctx context.Context, o bus.ClientOptions) (Bus, error)

// Dial is bus.Dial as a DialFunc.
func Dial(ctx context.Context, o bus.ClientOptions) (Bus, error) {
	c, err := bus.Dial(ctx, o)
	if err != nil {
		return nil, err // not a Bus that holds a nil *bus.Client
	}
	return c, nil
}

// Options of Run.
type Options struct {
	StateDir string              // where Enrol stored the site's identity
	Version  string              // of the program
	Seeds    []string            // read-only folders that may already hold content, such as a shipped disk
	Env      func(string) string // finds the proxies of the control connection; nil: none. Content uses those of the process
	Now      func() time.Time    // required
	Dial     DialFunc            // nil: Dial
	Log      func(Note)          // receives log lines, from many goroutines; nil: none

	// ReportRate bounds job data on the WAN, in bytes per second; 0: 64 KiB.
	ReportRate int64
	// Recheck is how long a verified target is trusted before the next check;
	// 0: a day.
	Recheck time.Duration
	// Retry is the first wait before a failed run is retried. It doubles each
	// time up to 30 minutes; 0: 15 s. AckWait is the time limit for an
	// acknowledgement; 0: 15 s.
	Retry, AckWait time.Duration

	// HaltEvery is how long the Core may be silent while content moves before
	// the agent reads halt orders from the store. It then reads at this
	// interval; 0: 10 s.
	HaltEvery time.Duration
	// Spread bounds the random wait of a channel after a halt order of the Core
	// was lifted; 0: 30 s.
	Spread time.Duration

	// Machine has 16 bytes by which the Core distinguishes machines of one site. Nil: derived from the system's own id.
	Machine []byte

	Observer durable.Observer // observes file operations on targets; for tests
}

// Note is one line of the agent's log.
type Note struct {
	Level   Level
	Text    string
	Channel string // empty: no channel
	Err     error
}

// Level of a Note.
type Level int

// Levels.
const (
	Info Level = iota
	Warning
	Error
)

func (o *Options) setDefaults() error {
	if o.Now == nil || o.StateDir == "" {
		return errors.New("agent: Options.Now and Options.StateDir must be set")
	}
	if o.Dial == nil {
		o.Dial = Dial
	}
	if o.Log == nil {
		o.Log = func(Note) {}
	}
	for _, d := range []struct {
		of  *time.Duration
		def time.Duration
	}{{&o.Recheck, 24 * time.Hour}, {&o.Retry, 15 * time.Second}, {&o.AckWait, 15 * time.Second}, {&o.HaltEvery, 10 * time.Second}, {&o.Spread, 30 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.def
		}
	}
	if o.ReportRate <= 0 {
		o.ReportRate = 64 << 10
	}
	return nil
}
