package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/apply"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/policy"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

type pullFlags struct {
	storeFlags
	release                                   trust.ReleaseNumber
	prune, dryRun, rehash, adopt, ignoreInode bool
	locked, lockWait                          string
	seeds, ignore                             []string
	subject                                   halt.Subject
}

// pullVerb makes a folder identical to a release.
type pullVerb struct{ e *env }

func newPull(e *env) *cobra.Command {
	var f pullFlags
	cmd := e.command(verb{
		use:   "pull [flags] STORE CHANNEL DIR",
		short: "Make a folder exactly a release of a channel",
		long: "Makes DIR exactly the newest release of CHANNEL, fetching only what this machine lacks. Everything is staged and checked before any of it becomes visible, in one burst of renames; whatever is killed or unplugged, every visible file is whole, and the next pull goes on where this one stopped. " +
			"Files that were changed by hand are found and repaired. Files that the site added are reported and stay, unless --prune is set. The folder /, the root of a Windows drive or share, and a folder inside the store or around it, are no target. Data that is unsigned, altered or older than data seen before is refused.",
		example: "nightferry pull file:///srv/store package /var/packages\nnightferry pull --limit-rate 20Mbit --trust nightferry-root.pub 's3://bucket/prefix?region=eu-west-1' driver 'D:\\drivers'",
		min:     3, max: 3, subject: 2,
		interrupt: resumes,
		run: func(ctx context.Context, args []string) error {
			return pullVerb{e}.pull(ctx, args[0], args[1], args[2], &f)
		},
	})
	f.add(cmd)
	fl := cmd.Flags()
	fl.Uint64Var((*uint64)(&f.release), "release", 0, "pull release `N` instead of the newest")
	fl.BoolVar(&f.prune, "prune", false, "delete files that the site added")
	fl.BoolVar(&f.dryRun, "dry-run", false, "show the changes and their cost, and change nothing")
	fl.BoolVar(&f.rehash, "rehash", false, "read every file of DIR, whatever its size and times say")
	fl.BoolVar(&f.ignoreInode, "ignore-inode", false, "take a file of unchanged size and modification time for unchanged, whatever its change time and inode number are")
	f.addSite(cmd)
	fl.StringArrayVar(&f.seeds, "seed", nil, "look in `DIR` for content first, such as a copy brought on a disk; may be repeated")
	return cmd
}

// addSite adds the flags that verify --repair has as well.
func (f *pullFlags) addSite(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.adopt, "adopt", false, "fill DIR although it held a release and holds nothing of it any more")
	fl.StringVar(&f.locked, "locked", "wait", "while a file is in use, `wait|partial`: change nothing before all can change, or go on with the rest")
	fl.StringVar(&f.lockWait, "lock-wait", "5m", "wait at most so `LONG` for files in use")
	fl.StringArrayVar(&f.ignore, "ignore", nil, "neither report nor prune files that the site added and that match `GLOB`; may be repeated")
	fl.StringVar(&f.subject.Site, "site", "", "be the site `NAME` to halt orders (default: the host's name)")
	fl.StringVar(&f.subject.Region, "region", "", "be in region `NAME` to halt orders")
	fl.StringVar(&f.subject.Domain, "domain", "", "be in domain `NAME` to halt orders")
}

func (f *pullFlags) options(channel string) (o apply.Options, err error) {
	o = apply.Options{Channel: channel, Release: f.release, Policy: policy.Policy{Prune: f.prune, Ignore: f.ignore, IgnoreInode: f.ignoreInode}, Connections: f.connections, Seeds: f.seeds, DryRun: f.dryRun, Rehash: f.rehash, Adopt: f.adopt, Subject: f.subject}
	if o.Subject.Site == "" {
		o.Subject.Site = hostname()
	}
	switch f.locked {
	case "wait":
		if o.LockWait, err = parseDays(f.lockWait); err != nil {
			return o, usage("pull", "--lock-wait: %w", err)
		}
	case "partial":
		o.Partial = true
	default:
		return o, usage("pull", "--locked %q: want wait or partial", f.locked)
	}
	if _, err := parseIgnore(f.ignore); err != nil {
		return o, err
	}
	if o.Key, err = repositoryKey(f.keyFile); err != nil {
		return o, err
	}
	o.RootKey, err = f.root()
	return o, err
}

func (g pullVerb) pull(ctx context.Context, rawURL, channel, dir string, f *pullFlags) error {
	began := g.e.now()
	o, err := f.options(channel)
	if err != nil {
		return err
	}
	if err := notFile("pull", dir, "name the folder to fill"); err != nil {
		return err
	}
	if err := refuseTarget(dir, rawURL); err != nil {
		return err
	}
	store, err := g.e.openStore(ctx, rawURL, &f.storeFlags, false)
	if err != nil {
		return err
	}
	o.Now = g.e.now
	var extras int64
	o.OnEvent = g.pullEvents(store, f.dryRun, &extras)
	g.e.startProgress()
	made, err := confirmAbsent(dir)
	if err != nil {
		return err
	}
	held, err := targetRecorded(g.e.stateDir, dir, channel)
	if err != nil {
		return err
	}
	if held {
		o.Held = &apply.Held{}
	}
	res, err := apply.Run(ctx, store, dir, o)
	g.e.endProgress()
	if err == nil && !held && (res.Verdict == apply.Verified || !res.Tree.IsZero()) {
		err = recordTarget(g.e.stateDir, dir, channel)
	}
	if made && res != nil && res.Number == 0 && (isAbsent(err) || isUnreachable(err) || isDenied(err)) {
		err = errors.Join(err, unmake(dir))
	}
	if extras > maxExtras && !g.e.json {
		g.e.summary("%-8s … and %s more of the site's own: --json lists them all", runs.FileExtra, group(extras-maxExtras))
	}
	if err != nil {
		return err
	}
	d := g.e.now().Sub(began)
	g.e.event("result", describePull(res, store, d))
	g.pullSummary(res, store, d)
	if res.Unowned {
		return &incompleteError{"ownership lost: files that a release dropped cannot be told from the site's own",
			"pull with --adopt to leave them as the site's own, or with --prune to delete them"}
	}
	if res.Verdict == apply.Incomplete {
		return &incompleteError{fmt.Sprintf("release %d is not in place as a whole: %s", res.Number, changes([]counted{{res.Locked, "locked"}, {res.Failed, "failed"}})),
			"free the files that are named above, then run it again: it goes on from here"}
	}
	return nil
}

// unmake removes a target that a pull has made and then had no release for.
func unmake(dir string) error {
	return errors.Join(os.RemoveAll(filepath.Join(dir, manifest.StateDir)), os.Remove(dir))
}

// pulled is what a pull tells programs at its end.
type pulled struct {
	Repo    string              `json:"repo"`
	Channel string              `json:"channel"`
	Number  trust.ReleaseNumber `json:"release"`
	Release trust.ReleaseDigest `json:"release_digest"`
	Tree    digest.Digest       `json:"tree,omitzero"`
	Totals  manifest.Totals     `json:"totals"`
	Verdict runs.State          `json:"verdict"`
	NoOp    bool                `json:"no_op"`
	Expired bool                `json:"expired,omitempty"`

	runs.Counts

	Damaged  int64   `json:"damaged"` // blocks and objects that arrived damaged and were fetched again
	Wire     int64   `json:"wire"`    // bytes received
	Fetched  int64   `json:"fetched"` // bytes of content that the store gave
	Held     int64   `json:"held"`    // bytes of content that were here
	Needed   int64   `json:"needed"`
	Written  int64   `json:"written"`
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
}

func describePull(r *apply.Result, t *traffic, d time.Duration) pulled {
	return pulled{Repo: r.Repo.String(), Channel: r.Channel, Number: r.Number, Release: r.Release, Tree: r.Tree, Totals: r.Totals, Verdict: r.Verdict, NoOp: r.NoOp, Expired: r.Expired,
		Counts:  r.Counts,
		Damaged: r.Damaged, Wire: t.got.Load(), Fetched: r.BytesFetched, Held: r.BytesHeld, Needed: r.BytesNeeded, Written: r.BytesWritten, Requests: t.requests.Load(), Seconds: d.Seconds()}
}

func (g pullVerb) pullSummary(r *apply.Result, t *traffic, d time.Duration) {
	if r.Damaged > 0 {
		g.e.warn("%s arrived damaged and were fetched again: the line, or a proxy on it, changes bytes", count(r.Damaged, "block"))
	}
	if r.Expired {
		g.e.warn("%s: the channel's head has expired: nothing newer is accepted until it is signed again", r.Channel)
	}
	state := string(r.Verdict)
	if r.NoOp {
		state = "already there, " + state
	}
	if r.Verdict == apply.Planned {
		g.e.summary("%s: release %s: would fetch %s", r.Channel, group(int64(r.Number)), size(r.BytesNeeded))
	} else {
		g.e.summary("%s: release %s: %s: %s", r.Channel, group(int64(r.Number)), state, holding(r.Totals.Files, r.Totals.Dirs, r.Totals.Bytes))
	}
	if r.NoOp && r.Extra == 0 {
		return
	}
	g.e.summary("  %s", changes(append(outcomes(&r.Counts), counted{r.Extra, "of the site's own"})))
	if !r.NoOp {
		g.e.summary("  moved %s, held %s, %s, %s", size(t.got.Load()), size(r.BytesHeld), count(t.requests.Load(), "request"), took(d))
	}
}

// pulledFile is what a pull tells programs of one file.
type pulledFile struct {
	Path    string        `json:"path"`
	From    string        `json:"from,omitempty"`
	Outcome runs.Outcome  `json:"outcome"`
	Size    int64         `json:"size"`
	Held    int64         `json:"held,omitempty"`
	Fetched int64         `json:"fetched,omitempty"`
	Digest  digest.Digest `json:"digest,omitzero"`
	Cause   string        `json:"cause,omitempty"`
}

// maxExtras bounds the site's own files that a person is told of one by one: a
// folder that was in use before may have a million of them.
const maxExtras = 20

// pullEvents returns what hears of a pull's events, and counts extras.
func (g pullVerb) pullEvents(t *traffic, dryRun bool, extras *int64) func(apply.Event) {
	var spoke time.Time
	var saved int64
	return func(ev apply.Event) {
		cause := ""
		if ev.Cause != nil {
			cause = ev.Cause.Error()
		}
		switch ev.Kind {
		case apply.RetryEvent:
			g.e.retry(ev.Cause)
		case apply.PinEvent:
			g.pinned(ev.Root)
		case apply.PhaseEvent:
			g.e.event("phase", meter{Phase: ev.Phase})
			g.e.tell(meter{Phase: ev.Phase})
		case apply.ProgressEvent:
			moved := t.got.Load()
			if ev.Phase == apply.PhaseStage {
				saved = max(0, ev.BytesDone-moved)
			}
			m := meter{Phase: ev.Phase, Files: ev.FilesDone, TotalFiles: ev.FilesTotal, Bytes: ev.BytesDone, TotalBytes: ev.BytesTotal, Moved: moved, Saved: saved}
			g.e.tell(m)
			if g.e.json && g.e.now().Sub(spoke) >= speakEvery {
				spoke = g.e.now()
				g.e.event("progress", m)
			}
		case apply.FileEvent:
			if ev.Outcome == runs.FileExtra {
				*extras++
			}
			g.e.event("file", pulledFile{ev.Path, ev.From, ev.Outcome, ev.Size, ev.Held, ev.Fetched, ev.Digest, cause})
			switch {
			case g.e.json, ev.Outcome == runs.FileExtra && *extras > maxExtras:
			case ev.Outcome == runs.FileLocked, ev.Outcome == runs.FileFailed:
				g.e.complain(fmt.Sprintf("%-8s %s: %s", ev.Outcome, shown(ev.Path), cause))
			case dryRun, ev.Outcome == runs.FileRepaired, ev.Outcome == runs.FileExtra:
				g.e.summary("%-8s %s%s", ev.Outcome, shown(ev.Path), from(ev.From))
			}
		}
	}
}

// pinned tells that a root key is believed because the store has it: whoever
// gave the store could have given another.
func (g pullVerb) pinned(root trust.Public) {
	g.e.event("pinned", struct {
		Root trust.Public `json:"root"`
	}{root})
	if !g.e.json && !g.e.quiet {
		g.e.complain(fmt.Sprintf("nightferry: root key pinned on first use: compare it with nightferry-root.pub\n  %s", root))
	}
}

func from(old string) string {
	if old == "" {
		return ""
	}
	return " (from " + shown(old) + ")"
}
