// Package agent is the daemon of a site: it dials the Core, brings every
// channel to the release that the Core has stated, and reports what became of
// every file.
//
// What the Core says is level-triggered: the newest signed State counts, and
// it is made durable before it is acted upon, as are newer trust documents and
// halts. What the site says of jobs is made durable in package spool before it
// is sent, and is sent again until the Core has acknowledged it.
//
// The invariant of a run: each entry of the release has exactly one outcome in
// the run's events, or is counted as unchanged, however often the process was
// killed on the way. A run is recorded before package apply begins. Before
// apply writes its journal, the outcomes are in the spool as intended; before
// it removes the journal, they are in the spool as settled. The end of the run
// moves what is settled to the events, with the event Finished, in one
// transaction. A process that finds a run under way goes on with it, under the
// same id: apply rolls the journal forward, which settles what was intended,
// and then finds those entries unchanged.
package agent

import (
	"context"
	"errors"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
)

// Bus is how the agent speaks with the Core.
type Bus interface {
	// Publish sends what may be lost; it keeps nothing while the Core is away.
	Publish(subject string, data []byte) error
	Subscribe(subject string, handler func(subject string, data []byte)) error
	Flush(ctx context.Context) error
	// SetURLs replaces the addresses that the next attempt to connect uses.
	SetURLs(urls []string) error
	// Close waits for handlers.
	Close()
}

// DialFunc connects. It is bus.Dial, but in tests.
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
	StateDir string              // where Enrol left the site's identity
	Version  string              // of the program
	Seeds    []string            // folders, read only, that may hold content already: a disk that was shipped
	Env      func(string) string // finds the proxies of the control connection; nil: none. Content's are the process's own
	Now      func() time.Time    // required
	Dial     DialFunc            // nil: Dial
	Log      func(Note)          // what an operator of the site wants to read, from many goroutines; nil: nobody

	// ReportRate bounds job data on the WAN, in bytes per second; 0: 64 KiB.
	ReportRate int64
	// Recheck is how long a verified target is trusted before it is looked at
	// again; 0: a day.
	Recheck time.Duration
	// Retry is the first wait before what failed is tried again, doubled each
	// time up to 30 minutes; 0: 15 s. AckWait is how long an acknowledgement
	// may take; 0: 15 s.
	Retry, AckWait time.Duration

	// HaltEvery is how long the Core may be silent while content moves before
	// the store is asked for orders to stop, and how often then; 0: 10 s.
	HaltEvery time.Duration
	// Spread bounds how long a channel waits, by chance, after an order of the
	// Core to stop was lifted; 0: 30 s.
	Spread time.Duration

	Observer durable.Observer // sees what is done to targets; for tests
}

// Note is one line of the agent's log.
type Note struct {
	Level   Level
	Text    string
	Channel string // empty: of none
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

func (o *Options) validate() error {
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
