package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

// collectPercent trades some processor time for memory: garbage may grow to
// 40 % of what is in use, which keeps a push or pull of many gigabytes below
// 256 MiB. A hard limit would do that too, until a first pull of a million
// files needs more than it: then the collector would take half the machine.
const collectPercent = 40

// errInterrupted is the cause of a context that a signal has cancelled.
var errInterrupted = errors.New("interrupted")

// run is the program: it returns the exit code of exit.go's table.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectPercent)
	}
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	ctx, stop := e.watchSignals(ctx)
	defer stop()

	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	interrupted := errors.Is(context.Cause(ctx), errInterrupted)
	stop() // what it says comes before the end's own line
	e.endProgress()
	if err == nil && e.writeErr != nil {
		err = fmt.Errorf("write the answer: %w", e.writeErr)
	}
	if err == nil {
		return 0
	}
	e.verb = cmd.CommandPath()
	if !e.started {
		err = &usageError{cmd: e.verb, err: suggested(err)}
		e.json = e.json || asksJSON(args) // flags were not read as far as there
	}
	code := codeOf(err)
	if interrupted && code == exitFailed {
		err, code = &interruptedError{err, e.onInterrupt}, exitInterrupted
	}
	e.fail(err, code)
	return code
}

// asksJSON reports whether a command line that could not be read asks for JSON.
func asksJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// suggested puts what cobra suggests, in place of a verb that there is not, on
// the line of the error.
func suggested(err error) error {
	text, list, ok := strings.Cut(err.Error(), "\n\nDid you mean this?")
	if !ok {
		return err
	}
	return fmt.Errorf("%s: did you mean %s?", text, strings.Join(strings.Fields(list), " or "))
}

// watchSignals cancels the context at the first Ctrl-C or SIGTERM, so that a
// run that can be resumed ends in such a state. A second one ends the program
// at once: that is safe as well, at any point, only less of the work is kept.
func (e *env) watchSignals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-signals:
			}
			if n > 0 {
				e.endProgress()
				os.Exit(exitInterrupted)
			}
			cancel(errInterrupted)
			e.warn("stopping (again to end at once)")
		}
	})
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		watcher.Wait()
		cancel(nil)
	})
}

// interruptedError ends a run that a signal has stopped.
type interruptedError struct {
	err    error
	remedy string
}

func (e *interruptedError) Error() string { return "interrupted" }
func (e *interruptedError) Unwrap() error { return e.err }

// Remedy tells whether the same command continues, or starts again.
func (e *interruptedError) Remedy() string { return e.remedy }

// What an interrupted command has left, for the remedy.
const (
	resumes        = "run the same command again: it continues where this one stopped"
	startsOver     = "it has changed nothing: the same command starts from the beginning"
	haltUnknown    = "nightferry halt status shows which halt orders are active"
	publishUnknown = "the Core may have received it: nightferry job list shows its jobs"
	limitUnknown   = "run the command again: the Core may have received it or not"
	sitesGoOn      = "the sites continue without this command: nightferry runs --open lists their runs"
)

// usageError is a command line that makes no sense.
type usageError struct {
	cmd string
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Remedy tells where the command is explained.
func (e *usageError) Remedy() string {
	if e.cmd == "" {
		return "" // who reports it knows
	}
	if strings.HasPrefix(e.cmd, "nightferry help ") {
		return "see " + e.cmd
	}
	return "see " + e.cmd + " --help"
}

// usage makes a usage error of a text. cmd is empty in what several verbs share.
func usage(cmd, format string, args ...any) error {
	if cmd != "" {
		cmd = "nightferry " + cmd
	}
	return &usageError{cmd: cmd, err: fmt.Errorf(format, args...)}
}
