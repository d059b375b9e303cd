package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nightferry/internal/api"
	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/config"
	"nightferry/internal/core"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/rights"
	"nightferry/internal/scan"
	"nightferry/internal/seal"
	"nightferry/internal/service"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
)

// Exit codes that code names itself.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// exit is one line of the table of exit codes and of general remedies. The table is what the program
// does (codeOf), what `nightferry help exit-codes` prints, and what docs/cli.md
// holds: a test compares.
type exit struct {
	code  int
	name  string
	means string
	is    func(error) bool // nil: never chosen by looking at an error
	// remedy is for errors that have none of their own. Empty: each has one, or
	// the command has printed its findings.
	remedy string
}

// exits returns the table, sorted by code. An error gets the highest code that
// fits: the more particular the reason, the higher its number.
func exits() []exit {
	return []exit{
		{0, "ok", "done; for verify, diff and fsck: and nothing was found", nil, ""},
		{exitFailed, "failed", "any other failure", nil, ""},
		{exitUsage, "usage", "the command line is invalid", isUsage, ""},
		{3, "different", "it worked, and found differences (verify, diff) or problems (fsck, gc, core check)", as[*foundError], ""},
		{4, "refused", "a guard stopped it before anything was published or changed", isRefused, "the message names the cause: correct it, and run the command again"},
		{5, "untrusted", "unsigned, altered, signed by a key that does not count, older than seen before, or from a site whose identity two machines use", isUntrusted, "do not use this data: compare the root key (nightferry trust show STORE) with the one that init printed"},
		{6, "unreachable", "the store or the Core does not answer, or kept telling us to slow down", isUnreachable, "check the address, the line and the firewall, then run the command again"},
		{7, "denied", "credentials or keys are lacking, wrong, expired, or readable or changeable by others", isDenied, "use the account, the credentials and the key files that are meant for this"},
		{8, "halted", "an active halt order stops it", as[*halt.Error], "nightferry halt status shows the halt order; nightferry resume lifts it"},
		{9, "conflict", "another push, pull or init was there first, or is running", isConflict, "wait until the other command has ended, then run this one again"},
		{10, "incomplete", "it ended, but some files are locked or failed", as[*incompleteError], "nightferry runs lists the runs of a Core; nightferry run show ID names the files of one"},
		{11, "full", "no space left, on a local disk or in the store", isFull, "free space, then run the command again"},
		{12, "damaged", "an object in the store, or local state, is damaged or missing", isDamaged, "nightferry fsck STORE shows the damaged objects of a store; restore local files that are named"},
		{13, "newer", "written by a newer nightferry than this one", as[*frame.NewerError], "use a nightferry that is at least as new"},
		{14, "absent", "the bucket, repository, channel, release, path, key, site, region, run, halt order, incident or audited action that was named does not exist", isAbsent, "check the spelling of the names on the command line: a path, a store, a channel, a key"},
		{15, "configuration", "the Core's configuration file has mistakes; nothing was started or changed", as[config.Errors], "mend the lines that are named, then run the command again"},
		{16, "endpoint", "the store's URL names the wrong region, the wrong scheme (http, https) or no S3 server", isEndpoint, "check the endpoint and the region in the store's URL"},
		{17, "unwritable", "this account may not use a local file or folder, or its volume is read-only", isUnwritable, "run the command as the account that owns the path, or give this account access; a read-only volume has to be mounted writable"},
		{exitInterrupted, "interrupted", "Ctrl-C or SIGTERM; the remedy says whether the same command continues", as[*interruptedError], ""},
	}
}

// codeOf returns the exit code of an error.
func codeOf(err error) int {
	table := exits()
	var told *api.Error // by a Core, in the words of its own table
	if errors.As(err, &told) {
		for _, x := range table {
			if x.name == told.Code {
				return x.code
			}
		}
	}
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].is != nil && table[i].is(err) {
			return table[i].code
		}
	}
	return exitFailed
}

// exitHelp is the text of `nightferry help exit-codes`.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Every verb ends with one of these codes:\n\n")
	for _, x := range exits() {
		fmt.Fprintf(&b, "  %3d  %-13s %s\n", x.code, x.name, strings.ReplaceAll(wrap(x.means, 58), "\n", "\n"+strings.Repeat(" ", 21)))
	}
	return b.String()
}

// as reports whether an E is in err's chain.
func as[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// foundError ends a verb that compares, and found something.
type foundError struct{ what string }

func (e *foundError) Error() string { return e.what }

// incompleteError ends a run that did not do all it should.
type incompleteError struct{ what, remedy string }

func (e *incompleteError) Error() string { return e.what }

// Remedy tells how to complete it.
func (e *incompleteError) Remedy() string { return e.remedy }

// refusedError is a guard of the command line itself.
type refusedError struct{ what, remedy string }

func (e *refusedError) Error() string { return e.what }

// Remedy returns the next step.
func (e *refusedError) Remedy() string { return e.remedy }

// existsError reports a repository that is in the way.
type existsError struct {
	err    error
	remedy string
}

func (e *existsError) Error() string { return e.err.Error() }
func (e *existsError) Unwrap() error { return e.err }

// Remedy returns the next step.
func (e *existsError) Remedy() string { return e.remedy }

// isUsage also takes what bucket.Open makes of a URL that names no store.
func isUsage(err error) bool {
	var e *bucket.Error
	return as[*usageError](err) || errors.Is(err, halt.ErrAmbiguous) || as[*manifest.NameError](err) || errors.As(err, &e) && e.Op == "open" && e.Kind == bucket.KindOther
}

func isRefused(err error) bool {
	return as[*refusedError](err) || as[*core.UnfinishedError](err) || as[*push.GuardError](err) || errors.Is(err, durable.ErrLink)
}

func isUntrusted(err error) bool {
	return errors.Is(err, trust.ErrUntrusted) || errors.Is(err, repo.ErrOlder) || errors.Is(err, apply.ErrExpired) || as[*core.ContestedError](err)
}

func isUnreachable(err error) bool {
	k := bucket.KindOf(err)
	return k == bucket.KindUnreachable || k == bucket.KindThrottled || errors.Is(err, api.ErrDown) || errors.Is(err, api.ErrSilent)
}

func isDenied(err error) bool {
	k := bucket.KindOf(err)
	return k == bucket.KindDenied || k == bucket.KindExpired || errors.Is(err, repo.ErrKey) || errors.Is(err, durable.ErrExposed) || errors.Is(err, durable.ErrUntrusted) || errors.Is(err, vault.ErrMaster) || as[*keyError](err) || as[*rights.DeniedError](err)
}

func isEndpoint(err error) bool { return bucket.KindOf(err) == bucket.KindEndpoint }

// isUnwritable takes what the local system refuses, not what a store does.
func isUnwritable(err error) bool {
	return durable.IsReadOnly(err) || errors.Is(err, fs.ErrPermission) && !as[*bucket.Error](err) && !isDenied(err)
}

func isConflict(err error) bool {
	return errors.Is(err, repo.ErrConflict) || errors.Is(err, repo.ErrExists) || errors.Is(err, repo.ErrTooLong) || errors.Is(err, repo.ErrForgotten) || errors.Is(err, durable.ErrBusy) || errors.Is(err, collect.ErrBusy) || errors.Is(err, ledger.ErrConflict) || errors.Is(err, service.ErrExists) || errors.Is(err, core.ErrPublishing)
}

func isFull(err error) bool {
	return durable.IsDiskFull(err) || errors.Is(err, ledger.ErrFull) || as[*apply.SpaceError](err) || bucket.KindOf(err) == bucket.KindFull
}

func isDamaged(err error) bool {
	return errors.Is(err, frame.ErrDamaged) || as[*repo.MissingError](err) || as[*repo.CorruptError](err) || as[*apply.IntegrityError](err) ||
		errors.Is(err, seal.ErrOpen) || errors.Is(err, scan.ErrCorrupt) ||
		bucket.KindOf(err) == bucket.KindIntegrity || isVital(err)
}

// isVital reports whether an object is absent that every repository has.
func isVital(err error) bool {
	var e *bucket.Error
	if !errors.As(err, &e) || e.Kind != bucket.KindNotExist {
		return false
	}
	for _, prefix := range []string{"halt", "index/", "packs/", "trust/"} {
		if strings.HasPrefix(e.Key, prefix) {
			return true
		}
	}
	return false
}

func isAbsent(err error) bool {
	return as[*absentError](err) || as[*fleet.UnknownError](err) || as[*apply.NoReleaseError](err) || as[*apply.EmptiedError](err) || errors.Is(err, bucket.ErrNoBucket) || errors.Is(err, ledger.ErrNotFound) || errors.Is(err, service.ErrAbsent) || errors.Is(err, fs.ErrNotExist) && !isDamaged(err) && !isDenied(err)
}

// absentError says that what the command line names is not there.
type absentError struct{ what, remedy string }

func (e *absentError) Error() string { return e.what }

// Remedy tells how to find what there is.
func (e *absentError) Remedy() string { return e.remedy }
