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
	// remedy is for errors that have none of their own.
	remedy string
}

// exitTable returns the table, sorted by code. If several codes match an error, the highest one applies.
func exitTable() []exit {
	return []exit{
		{exitOK, "ok", "done; for check: and all is well", nil, ""},
		{1, "failed", "any other failure", func(error) bool { return true }, ""},
		{exitUsage, "usage", "the command line is invalid", is(wire.ErrToken), "see nightferry-agent --help, and --help of its commands"},
		{3, "different", "check found a problem", is(errFound), ""},
		{4, "refused", "the Core refuses this site, or a guard of this program does", func(err error) bool {
			var r *agent.RefusedError
			return errors.As(err, &r) || errors.Is(err, agent.ErrEnrolled) || errors.Is(err, durable.ErrLink) || errors.Is(err, service.ErrExists)
		}, "the message names the cause: correct it, then run the command again"},
		{5, "untrusted", "the server is not the Core, or its answer is not signed by the Core's keys", func(err error) bool { return errors.Is(err, trust.ErrUntrusted) || errors.Is(err, bus.ErrPin) }, "compare the token with the one that the Core issued; ask for a new one: nightferry site token NAME"},
		{6, "unreachable", "the Core does not answer", func(err error) bool {
			var n net.Error
			return errors.As(err, &n) || errors.Is(err, agent.ErrNoAnswer)
		}, "check the Core's address, the line and the firewall, then run the command again"},
		{7, "denied", "key files can be read or changed by others, or this account may not do that", func(err error) bool {
			return errors.Is(err, durable.ErrExposed) || errors.Is(err, durable.ErrUntrusted) || errors.Is(err, fs.ErrPermission)
		}, "run the command as the account of the agent; check, halt, resume and status also work as root"},
		{9, "conflict", "another agent runs in that folder", is(durable.ErrBusy), "stop the agent that runs, then run the command again"},
		{11, "full", "no space left", func(err error) bool { return errors.Is(err, spool.ErrFull) || durable.IsDiskFull(err) }, "free space, then run the command again"},
		{13, "newer", "the Core, or the agent's database, is newer than this program", func(err error) bool {
			var n *frame.NewerError
			return errors.As(err, &n)
		}, "update nightferry-agent"},
		{14, "absent", "this site is not enrolled, or the file, service or halt order that was named does not exist", func(err error) bool {
			return errors.Is(err, agent.ErrNotEnrolled) || errors.Is(err, agent.ErrNoHalt) || errors.Is(err, service.ErrAbsent) || errors.Is(err, fs.ErrNotExist)
		}, "check the path that is named; a site without an identity joins with nightferry-agent enroll"},
	}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// codeOf returns the exit code of an error.
func codeOf(err error) int {
	code := 1
	for _, x := range exitTable() {
		if x.is != nil && x.is(err) {
			code = x.code
		}
	}
	return code
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Every verb ends with one of these codes:\n\n")
	for _, x := range exitTable() {
		fmt.Fprintf(&b, "  %3d  %-12s %s\n", x.code, x.name, strings.ReplaceAll(wrapTo(x.means, lineWidth-20), "\n", "\n"+strings.Repeat(" ", 20)))
	}
	return b.String()
}
