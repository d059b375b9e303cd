package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

func newRollback(e *env) *cobra.Command {
	var f storeFlags
	var keyFile string
	cmd := e.command(verb{
		use:   "rollback [flags] STORE CHANNEL NUMBER",
		short: "Publish an older release's tree as a new release",
		long: "Publishes a new release that holds exactly the tree of release NUMBER. Numbers only grow: no site ever accepts an older release, so the way back is a newer one. If the newest release already has that tree, nothing is published. " +
			"No content moves. It is refused when gc has started to remove packs that the old release needs: push that content again instead.",
		example: "nightferry rollback file:///srv/store package 7",
		min:     3, max: 3, subject: 1,
		run: func(ctx context.Context, args []string) error {
			n, err := parseNumber(args[2])
			if err != nil {
				return usage("rollback", "%w", err)
			}
			return e.rollback(ctx, args[0], args[1], n, keyFile, &f)
		},
	})
	f.add(cmd)
	addReleaseKey(cmd, &keyFile)
	return cmd
}

func addReleaseKey(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "release-key", "", "`FILE` with the key that signs (or NIGHTFERRY_RELEASE_KEY; default nightferry-release.key)")
}

func (e *env) rollback(ctx context.Context, rawURL, channel string, number trust.ReleaseNumber, keyFile string, f *storeFlags) (err error) {
	key, err := signingKey(releaseUse, keyFile)
	if err != nil {
		return err
	}
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	subject := halt.Subject{Site: hostname(), Channel: channel}
	if err := s.Halts().Check(ctx, subject); err != nil {
		return err
	}
	head, err := s.head(ctx, channel)
	if err != nil {
		return err
	}
	old, err := s.release(ctx, channel, number)
	if err != nil {
		return err
	}
	newest, err := s.release(ctx, channel, head.Number)
	if err != nil {
		return err
	}
	if newest.Tree == old.Tree {
		e.event("unchanged", describe(newest, head))
		e.summary("%s: release %d already has the tree of release %d: nothing was published", channel, newest.Number, number)
		return nil
	}
	index, err := s.Index(ctx)
	if err != nil {
		return err
	}
	if err := s.stillStored(ctx, index, old); err != nil {
		return err
	}
	rel := old.Release
	rel.Created, rel.Note = s.StoreTime().Unix(), fmt.Sprintf("rollback to release %d", number)
	done, err := s.Publisher(key).Publish(ctx, repo.Commit{Release: rel, Parent: head, Started: index.Date(), Lost: index.Root().Lost, Subject: subject})
	if err != nil {
		return err
	}
	if err := s.remember(); err != nil {
		return err
	}
	e.event("result", describe(done, nil))
	e.summary("%s: release %d published with the tree of release %d (%s, %s)", channel, done.Number, number, count(done.Totals.Files, "file"), size(done.Totals.Bytes))
	return nil
}

// stillStored proves that everything that a release refers to is in packs that
// stay: a head must never lead to what gc is about to delete.
func (s *session) stillStored(ctx context.Context, index *repo.Index, rel *repo.Release) (err error) {
	temp, err := os.MkdirTemp("", "nightferry-index-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	dir, err := durable.Open(temp, durable.Options{})
	if err != nil {
		return err
	}
	known, err := s.Segments(dir).Known(ctx, index)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	defer func() { err = errors.Join(err, known.Close(), dir.Close()) }()
	has := func(what string, id digest.Digest) error {
		ok, err := known.Has(id)
		if err != nil || ok {
			return err
		}
		return &refusedError{fmt.Sprintf("release %d can no longer be brought back: %s is gone, or about to be removed by gc", rel.Number, what), "push the content again"}
	}
	for _, p := range rel.Pages {
		if err := has("a page of its manifest", p.ID); err != nil {
			return err
		}
	}
	next, pages, err := s.entries(ctx, rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pages.done()) }()
	at := func(context.Context) (*repo.Index, error) { return index, nil }
	for {
		entry, err := next()
		if err != nil || entry == nil {
			return err
		}
		if err := s.entryStored(ctx, at, entry, pages, has); err != nil {
			return err
		}
	}
}

func (s *session) entryStored(ctx context.Context, at func(context.Context) (*repo.Index, error), entry *manifest.Entry, pages repo.Pages, has func(string, digest.Digest) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	what := fmt.Sprintf("a part of %q", shown(entry.Path))
	var lists []digest.Digest
	for _, l := range entry.Lists {
		if err := has(what, l.ID); err != nil {
			return err
		}
		lists = append(lists, l.ID)
	}
	if err := s.Manifests(pages).Load(ctx, at, lists, s.fetch()); err != nil {
		return err
	}
	refs, err := s.Manifests(pages).Refs(entry)
	if err != nil {
		return err
	}
	for _, r := range refs {
		if r.Hole() {
			continue
		}
		if err := has(what, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// hostname is who this machine is to halt orders.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
