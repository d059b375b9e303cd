package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"nightferry/internal/collect"
)

func newFsck(e *env) *cobra.Command {
	var f storeFlags
	var o collect.FsckOptions
	var verbose bool
	cmd := e.command(verb{
		use:   "fsck [flags] STORE",
		short: "Prove that everything in a store is there and intact",
		long: "Checks every object that any release needs: the trust documents, the halt object, the index, each channel's releases and manifests, that every chunk is in a pack, and that every pack is there in its full size. With --read-data every byte is read and checked. " +
			"It lists damaged and missing objects with their remedy, and counts the garbage that gc will delete; --verbose lists that too. The exit code is 3 when there is damage. " +
			"--forget-missing takes lost and damaged packs out of the index, so that the next push stores their content anew.",
		example: "nightferry fsck file:///srv/store\nnightferry fsck --read-data file:///srv/store\nnightferry fsck --read-data --forget-missing file:///srv/store",
		min:     1, max: 1,
		run: func(ctx context.Context, args []string) error { return e.fsck(ctx, args[0], o, &f, verbose) },
	})
	f.add(cmd)
	cmd.Flags().BoolVar(&verbose, "verbose", false, "list each object that gc will delete")
	cmd.Flags().BoolVar(&o.ReadData, "read-data", false, "read every pack and check every chunk")
	cmd.Flags().BoolVar(&o.ForgetMissing, "forget-missing", false, "take lost and damaged packs out of the index, so that the next push heals them")
	cmd.Flags().BoolVar(&o.RebuildIndex, "rebuild-index", false, "first make the index anew from the packs alone; nothing else may write meanwhile")
	return cmd
}

func (e *env) fsck(ctx context.Context, rawURL string, o collect.FsckOptions, f *storeFlags, verbose bool) (err error) {
	began := e.now()
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	segs, done, err := s.segments(ctx, "fsck")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	o.Connections, o.OnEvent = f.connections, e.collectEvents()
	e.startProgress()
	rep, err := collect.Fsck(ctx, s.Repo, segs, o, func(found collect.Finding) {
		e.event("finding", found)
		// A healthy store always holds garbage that is too young for gc. An object of
		// another program stays until a person deletes it.
		listed := found.Severity == collect.Damage || !e.quiet && (verbose || found.Kind == collect.KindObject)
		if !e.json && listed {
			e.print("%s", shown(found.String()))
		}
	})
	e.endProgress()
	if err := errors.Join(err, s.remember()); err != nil {
		return err
	}
	d := e.now().Sub(began)
	e.event("result", struct {
		*collect.FsckReport
		Requests int64   `json:"requests"`
		Seconds  float64 `json:"seconds"`
	}{rep, s.traffic.requests.Load(), d.Seconds()})
	e.summary("%s, %s, %s: %s", count(int64(rep.Channels), "channel"), count(int64(rep.Releases), "release"), count(rep.Files, "entry"), verdictOf(rep))
	e.summary("  %s with %s, %s needed, %s read, %s", count(rep.Packs, "pack"), size(rep.PackBytes), count(rep.Chunks, "chunk"), size(rep.ReadBytes), took(d))
	if rep.Garbage > 0 {
		e.summary("  %s, %s, that nothing needs: gc removes it in time", count(rep.Garbage, "object"), size(rep.GarbageBytes))
	}
	if rep.Indexed > 0 {
		e.summary("  %s indexed", count(rep.Indexed, "pack"))
	}
	if rep.Forgotten > 0 {
		e.summary("  %s forgotten, %s saved from them", count(rep.Forgotten, "pack"), count(rep.Salvaged, "chunk"))
	}
	if rep.Damage > 0 {
		return &foundError{fmt.Sprintf("%s found", count(rep.Damage, "problem"))}
	}
	return nil
}

func verdictOf(rep *collect.FsckReport) string {
	if rep.Damage > 0 {
		return "damaged"
	}
	return "intact"
}
