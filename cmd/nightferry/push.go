package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/push"
	"nightferry/internal/runs"
)

type pushFlags struct {
	storeFlags
	patternFlags
	releaseKey, links, maxDelete                                                           string
	allowDeletes, allowEmpty, allowUnmounted, ignoreInode, allowUnportable, rehash, dryRun bool
}

// pushVerb publishes a folder.
type pushVerb struct{ e *env }

func newPush(e *env) *cobra.Command {
	var f pushFlags
	cmd := e.command(verb{
		use:   "push [flags] DIR STORE CHANNEL",
		short: "Publish a folder as the next release of a channel",
		long: "Publishes the content of DIR as the next release of CHANNEL. Only chunks that the store lacks are sent, and files that look as they did at the last push (size, times, inode) are not read. " +
			"Guards stop it before anything is published: an empty source, or one that lacks volumes of the last release, more deletes than --max-delete, a source that lies in the store or holds it, names that Windows cannot hold or that collide by case, links and special files. " +
			"A push that is killed leaves the channel as it was; the next one reuses the chunks that it had stored.",
		example: "nightferry push /srv/packages file:///srv/store package\nnightferry push --exclude '*.tmp' /srv/drivers 's3://bucket/prefix?region=eu-west-1' driver\nnightferry push --dry-run /srv/images file:///srv/store image",
		min:     3, max: 3,
		interrupt: resumes,
		run: func(ctx context.Context, args []string) error {
			return pushVerb{e}.push(ctx, args[0], args[1], args[2], &f)
		},
	})
	f.storeFlags.add(cmd)
	// Each pack that waits to be stored is in memory: with eight, a line that is slower than the source costs 350 MiB.
	packs := cmd.Flags().Lookup("connections")
	packs.Usage, packs.DefValue, f.connections = "`N` packs stored at once; each takes 20 MiB of memory", "3", 3
	f.patternFlags.add(cmd)
	addReleaseKey(cmd, &f.releaseKey)
	fl := cmd.Flags()
	fl.StringVar(&f.links, "links", "refuse", "what to do about links and special files in the source: `refuse|skip`")
	fl.StringVar(&f.maxDelete, "max-delete", "25%", "refuse to remove more than this `SHARE` or number of the last release's files")
	fl.BoolVar(&f.allowDeletes, "allow-deletes", false, "remove as many files as it takes")
	fl.BoolVar(&f.allowEmpty, "allow-empty", false, "publish a source without any file")
	fl.BoolVar(&f.allowUnmounted, "allow-unmounted", false, "publish a source that lacks volumes which were mounted at the last release")
	fl.BoolVar(&f.allowUnportable, "allow-unportable-names", false, "publish names that Windows cannot hold, or that differ by case only; Windows sites refuse the release")
	fl.BoolVar(&f.ignoreInode, "ignore-inode", false, "take a file of unchanged size, modification time and mode for unchanged, whatever its change time and inode number are")
	fl.BoolVar(&f.rehash, "rehash", false, "read every file, whatever its size and times say")
	fl.BoolVar(&f.dryRun, "dry-run", false, "show the changes that a push would publish and their cost, and store nothing")
	return cmd
}

func (f *pushFlags) options() (o push.Options, err error) {
	if o.MaxDelete, o.MaxDeleteFiles, err = parseMaxDelete(f.maxDelete); err != nil {
		return o, usage("push", "%w", err)
	}
	switch f.links {
	case "refuse":
	case "skip":
		o.Links = push.Skip
	default:
		return o, usage("push", "--links %q: want refuse or skip", f.links)
	}
	o.AllowDeletes, o.AllowEmpty, o.AllowUnportable = f.allowDeletes, f.allowEmpty, f.allowUnportable
	o.AllowUnmounted, o.IgnoreInode = f.allowUnmounted, f.ignoreInode
	o.Rehash, o.DryRun, o.Connections = f.rehash, f.dryRun, f.connections
	if o.Patterns, err = f.patterns(); err != nil {
		return o, err
	}
	o.Key, err = signingKey(releaseUse, f.releaseKey)
	return o, err
}

func (g pushVerb) push(ctx context.Context, dir, rawURL, channel string, f *pushFlags) (err error) {
	began := g.e.now()
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := notFile("push", dir, "name the folder whose content is to be published"); err != nil {
		return err
	}
	if err := manifest.CheckChannel(channel); err != nil {
		return err // before a file gets its name
	}
	if err := refuseSource(dir, rawURL); err != nil {
		return err
	}
	s, err := g.e.open(ctx, rawURL, &f.storeFlags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	unlock, err := s.exclusive(ctx, "push-"+channel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	o.Channel, o.State, o.Now = channel, s.state, g.e.now
	o.Subject = halt.Subject{Site: hostname(), Channel: channel}
	o.OnEvent = g.pushEvents(f.dryRun)
	g.e.startProgress()
	res, err := push.Run(ctx, s.Repo, dir, o)
	g.e.endProgress()
	// What was seen counts, whatever became of the push.
	if err := errors.Join(err, s.remember()); err != nil {
		return err
	}
	g.e.event("result", struct {
		Channel string `json:"channel"`
		*push.Result
		Requests int64   `json:"requests"`
		Seconds  float64 `json:"seconds"`
	}{channel, res, s.traffic.requests.Load(), g.e.now().Sub(began).Seconds()})
	g.pushSummary(channel, res, g.e.now().Sub(began))
	return nil
}

// notFile refuses a file where a folder is wanted.
func notFile(cmd, path, remedy string) error {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return usage(cmd, "it is a file: %s", remedy)
	}
	return nil
}

func (g pushVerb) pushSummary(channel string, res *push.Result, d time.Duration) {
	what := "release " + group(int64(res.Number))
	switch {
	case res.Unchanged:
		what += " is unchanged"
	case res.DryRun:
		what += " would be published"
	default:
		what += " published"
	}
	g.e.summary("%s: %s: %s", channel, what, holding(res.Totals.Files, res.Totals.Dirs, res.Totals.Bytes))
	if res.Unchanged && res.Read == 0 {
		return
	}
	would := ""
	if res.DryRun {
		would = "would "
	}
	g.e.summary("  %s", changes([]counted{{res.Added, "added"}, {res.Changed, "changed"}, {res.Touched, "touched"}, {res.Removed, "removed"}, {res.Skipped, "skipped"}}))
	if res.DryRun {
		g.e.summary("  read %s, %ssend %s in %s with %s that write, %s", size(res.Read), would, size(res.Sent), count(res.Packs, "pack"), count(res.Puts, "request"), took(d))
		return
	}
	g.e.summary("  read %s, sent %s in %s, saved %s, %s", size(res.Read), size(res.Sent), count(res.Packs, "pack"), size(max(0, res.Read-res.Sent)), took(d))
}

// pushEvents returns what hears of a push's events.
func (g pushVerb) pushEvents(dryRun bool) func(push.Event) {
	var spoke time.Time
	return func(ev push.Event) {
		if p := ev.Progress; p != nil {
			m := meter{Phase: p.Phase, Files: p.Files, TotalFiles: p.TotalFiles, Bytes: p.Read, TotalBytes: p.ToRead, Moved: p.Sent, Saved: max(0, p.Read-p.Sent), Path: p.Path}
			g.e.tell(m)
			if g.e.json && g.e.now().Sub(spoke) >= speakEvery {
				spoke = g.e.now()
				g.e.event("progress", m)
			}
			return
		}
		if ev.Path == "" {
			return
		}
		g.e.event("file", ev)
		switch {
		case g.e.json:
		case ev.Cause != "" && ev.Outcome != runs.FileSkipped:
			g.e.warn("%q: %s", shown(ev.Path), ev.Cause)
		case dryRun || ev.Outcome == runs.FileSkipped:
			g.e.summary("%-8s %s", ev.Outcome, shown(ev.Path))
		}
	}
}

// exclusive takes this machine's caches of the repository. Two runs about the
// same thing make no sense: the second ends at once. Others wait their turn,
// since they share the caches.
func (s *session) exclusive(ctx context.Context, what string) (unlock func() error, err error) {
	own, err := durable.Lock(s.state, what+".lock")
	if err != nil {
		return nil, err
	}
	for said := false; ; said = true {
		all, err := durable.Lock(s.state, "lock")
		if err == nil {
			return func() error { return errors.Join(all(), own()) }, nil
		}
		if !errors.Is(err, durable.ErrBusy) {
			return nil, errors.Join(err, own())
		}
		if !said {
			s.e.warn("waiting for another push, gc or fsck of this repository on this machine")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), own())
		case <-time.After(lockPoll):
		}
	}
}

const lockPoll = 200 * time.Millisecond
