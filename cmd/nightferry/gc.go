package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
)

func newGC(e *env) *cobra.Command {
	var f storeFlags
	var fleet coreFlags
	var keyFile, within string
	var o collect.Options
	cmd := e.command(verb{
		use:   "gc [flags] STORE",
		short: "Remove old releases and unused packs",
		long: "Deletes releases that neither --keep nor --keep-within retains, then marks the packs that the others need. Packs that nothing needs are condemned and deleted by a later gc, once the repository's grace period has passed by the store's own clock and they are still not needed. " +
			"Pushes and pulls may run meanwhile. When anything that is retained cannot be read, nothing is deleted. A Core that runs here, and publishes into this store, is asked what its sites hold and its configuration retains (keep, keep_within): that stays too, and all that is newer.",
		example: "nightferry gc file:///srv/store\nnightferry gc --keep 30 --keep-within 90d --dry-run file:///srv/store",
		min:     1, max: 1,
		interrupt: resumes,
		run: func(ctx context.Context, args []string) (err error) {
			if within != "" {
				if o.KeepWithin, err = parseDays(within); err != nil {
					return usage("gc", "--keep-within: %w", err)
				}
			}
			if o.Keep < 1 {
				return usage("gc", "--keep %d: want at least 1, the newest release always stays", o.Keep)
			}
			if o.Key, err = keyIfAny(keyFile); err != nil {
				return err
			}
			return e.gc(ctx, args[0], o, &f, &fleet)
		},
	})
	f.add(cmd)
	fleet.add(cmd)
	addReleaseKey(cmd, &keyFile)
	cmd.Flags().IntVar(&o.Keep, "keep", collect.DefaultKeep, "keep the newest `N` releases of each channel")
	cmd.Flags().StringVar(&within, "keep-within", "", "also keep releases that were a channel's newest within this `TIME`, such as 90d")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "list the objects that gc would remove, and remove nothing")
	return cmd
}

// keyIfAny reads the release key if there is one: gc can do without.
func keyIfAny(file string) (ed25519.PrivateKey, error) {
	key, err := signingKey(releaseUse, file)
	if file == "" && isAbsentKey(err) {
		return nil, nil
	}
	return key, err
}

func (e *env) gc(ctx context.Context, rawURL string, o collect.Options, f *storeFlags, fleet *coreFlags) (err error) {
	began := e.now()
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	segs, done, err := s.segments(ctx, "gc")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	asked, holders, err := e.hold(ctx, s, fleet, &o)
	if err != nil {
		return err
	}
	o.Connections, o.Subject = f.connections, halt.Subject{Site: hostname()}
	o.OnEvent = e.collectEvents()
	e.startProgress()
	rep, err := collect.GC(ctx, s.Repo, segs, o)
	e.endProgress()
	if err := errors.Join(err, s.remember()); err != nil {
		return err
	}
	e.event("result", struct {
		*collect.Report
		Core     string              `json:"core"`              // "", or why it was not asked what sites hold
		Holders  map[string][]string `json:"holders,omitempty"` // by channel: who keeps the oldest release that stays
		Requests int64               `json:"requests"`
		Seconds  float64             `json:"seconds"`
	}{rep, asked, holders, s.traffic.requests.Load(), e.now().Sub(began).Seconds()})
	would := ""
	if rep.DryRun {
		would = "would be "
	}
	e.summary("%s: %s kept, %s %sdeleted", count(int64(rep.Channels), "channel"), count(int64(rep.Kept), "release"), group(int64(rep.Expired+rep.Abandoned)), would)
	e.summary("  %s: %s %sdeleted (%s), %s %scondemned (%s), %s waiting", count(rep.Packs, "pack"), group(rep.Deleted+rep.Leftovers), would, size(rep.DeletedBytes+rep.LeftoverBytes),
		group(rep.Condemned), would, size(rep.CondemnedSize), group(rep.Doomed))
	if asked != "" {
		e.summary("  no Core was asked what its sites hold: %s", asked)
	}
	for _, channel := range slices.Sorted(maps.Keys(holders)) {
		e.summary("  %s: release %d and newer stay for %s", channel, o.Hold[channel][0], firstFew(holders[channel]))
	}
	if rep.Repacked+rep.Revived > 0 {
		e.summary("  %s %swritten anew (%s of them small, %s left for the next run), %s needed after all", count(rep.Repacked, "pack"), would, group(rep.Merged), group(rep.Postponed), group(rep.Revived))
	}
	if rep.Lost > 0 {
		return &foundError{group(rep.Lost) + " chunks that releases need are in no pack that the index names, so no pack was deleted: run nightferry fsck STORE, then fsck --rebuild-index STORE where a pack may hold them"}
	}
	return nil
}

// hold asks the Core of this repository what must stay, or says why it was not
// asked.
func (e *env) hold(ctx context.Context, s *session, f *coreFlags, o *collect.Options) (why string, oldest map[string][]string, err error) {
	a, err := f.client()
	if err != nil {
		if f.config == "" && as[*absentError](err) {
			return "there is no configuration of one here", nil, nil
		}
		return "", nil, err
	}
	defer a.Close()
	h, err := a.Held(ctx)
	switch {
	case as[*downError](err):
		return "it does not run", nil, nil
	case denied(err):
		return "this account may not use its local socket", nil, nil
	case err != nil:
		return "", nil, err
	case h.Repo != s.ID().String():
		return "the one here has another repository", nil, nil
	}
	o.Hold = h.Releases
	return "", h.Oldest, nil
}

// firstFew names the first of a list and counts the others.
func firstFew(all []string) string {
	const few = 3
	if len(all) <= few+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}

// denied says that a Core's door is shut to this account.
func denied(err error) bool {
	var told *api.Error
	return errors.As(err, &told) && told.Code == "denied"
}

// segments opens the local copies of the index, for this run alone.
func (s *session) segments(ctx context.Context, what string) (*repo.Segments, func() error, error) {
	unlock, err := s.exclusive(ctx, what)
	if err != nil {
		return nil, nil, err
	}
	dir, err := durable.Open(filepath.Join(s.state.Dir(), "segments"), durable.Options{Create: true})
	if err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	return s.Segments(dir), func() error { return errors.Join(dir.Close(), unlock()) }, nil
}

// collectEvents returns what hears of the events of gc.
func (e *env) collectEvents() func(collect.Event) {
	return func(ev collect.Event) {
		e.event("step", ev)
		e.tell(meter{Phase: ev.Phase, Files: ev.Done, TotalFiles: ev.Total, noun: "step"})
	}
}
