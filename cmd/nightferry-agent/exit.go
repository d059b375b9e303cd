package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/service"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Exit codes. Reasons that nightferry shares have the same number there.
const (
	exitOK    = 0
	exitUsage = 2
)

type exit struct {
	code  int
	name  string
	means string
	is    func(error) bool // nil: never derived from an error
}

// exits returns the table, sorted by code. If several codes match an error, the highest one applies.
func exits() []exit {
	return []exit{
		{exitOK, "ok", "done; for check: and all is well", nil},
		{1, "failed", "anything that has no code of its own", func(error) bool { return true }},
		{exitUsage, "usage", "the command line makes no sense", is(wire.ErrToken)},
		{3, "different", "check found something that is not as it should be", is(errFound)},
		{4, "refused", "the Core refuses this site, or a guard of this program does", func(err error) bool {
			var r *agent.RefusedError
			return errors.As(err, &r) || errors.Is(err, agent.ErrEnrolled) || errors.Is(err, durable.ErrLink) || errors.Is(err, service.ErrExists)
		}},
		{5, "untrusted", "the server is not the Core, or what it says is not signed by its keys", func(err error) bool { return errors.Is(err, trust.ErrUntrusted) || errors.Is(err, bus.ErrPin) }},
		{6, "unreachable", "the Core does not answer", func(err error) bool {
			var n net.Error
			return errors.As(err, &n) || errors.Is(err, agent.ErrNoAnswer)
		}},
		{7, "denied", "key files can be read or changed by others, or this account may not do that", func(err error) bool {
			return errors.Is(err, durable.ErrExposed) || errors.Is(err, durable.ErrUntrusted) || errors.Is(err, fs.ErrPermission)
		}},
		{9, "conflict", "another agent runs in that folder", is(durable.ErrBusy)},
		{11, "full", "no space left", func(err error) bool { return errors.Is(err, spool.ErrFull) || durable.IsDiskFull(err) }},
		{13, "newer", "the Core, or the agent's database, is newer than this program", func(err error) bool {
			var n *frame.NewerError
			return errors.As(err, &n)
		}},
		{14, "absent", "this site is not enrolled, or the file or service that was named does not exist", func(err error) bool {
			return errors.Is(err, agent.ErrNotEnrolled) || errors.Is(err, service.ErrAbsent) || errors.Is(err, fs.ErrNotExist)
		}},
	}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// codeOf returns the exit code of an error.
func codeOf(err error) int {
	code := 1
	for _, x := range exits() {
		if x.is != nil && x.is(err) {
			code = x.code
		}
	}
	return code
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Every verb ends with one of these codes:\n\n")
	for _, x := range exits() {
		fmt.Fprintf(&b, "  %3d  %-12s %s\n", x.code, x.name, strings.ReplaceAll(wrapTo(x.means, lineWidth-20), "\n", "\n"+strings.Repeat(" ", 20)))
	}
	return b.String()
}
