package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
	"nightferry/internal/verify"
)

// pushRow and pullRow are rows of the tables.
type pushRow struct {
	channel                   string
	number                    trust.ReleaseNumber
	files, read, sent, packed int64
	requests                  int64
	seconds                   float64
}

type pullRow struct {
	site, channel string
	number        trust.ReleaseNumber
	files         int64
	moved, held   int64 // bytes over the wire; bytes of content that were already there
	requests      int64
	seconds       float64
	verdict       string
}

func (d *demo) push(ctx context.Context, c channel) error {
	d.command("push core/%s %s %s", c.name, d.shownURL(), c.name)
	began := time.Now()
	store := testbed.Count(d.store)
	r, err := repo.Open(ctx, store, d.options())
	if err != nil {
		return err
	}
	res, err := push.Run(ctx, r, c.source, push.Options{Channel: c.name, Key: d.key, State: d.state, Links: push.Skip, Now: time.Now})
	if err != nil {
		return fmt.Errorf("push %s: %w", c.name, err)
	}
	if err := repo.SaveMemory(d.state, r.Memory()); err != nil {
		return err
	}
	d.pushes = append(d.pushes, pushRow{c.name, res.Number, res.Totals.Files, res.Read, res.Sent, res.Packs, store.Counts().Requests(), time.Since(began).Seconds()})
	d.say("    release %d: %d files, read %s, sent %s", res.Number, res.Totals.Files, size(res.Read), size(res.Sent))
	return nil
}

func (d *demo) options() repo.Options {
	m, err := repo.LoadMemory(d.state)
	if err != nil {
		m = nil // this run created the folder
	}
	return repo.Options{Memory: m, Now: time.Now}
}

// pull pulls the newest release of every channel to a site and verifies it.
func (d *demo) pull(ctx context.Context, site string) error {
	for _, c := range d.channels {
		d.command("pull %s %s %s/%s", d.shownURL(), c.name, site, c.name)
		target := filepath.Join(d.dir, site, c.name)
		began := time.Now()
		store := testbed.Count(d.store)
		res, err := apply.Run(ctx, store, target, apply.Options{Channel: c.name, Now: time.Now})
		if err != nil {
			return fmt.Errorf("pull %s to %s: %w", c.name, site, err)
		}
		row := pullRow{site: site, channel: c.name, number: res.Number, files: res.Totals.Files, moved: store.Counts().Got, held: res.Totals.Bytes - res.BytesFetched,
			requests: store.Counts().Requests(), seconds: time.Since(began).Seconds()}
		d.command("verify %s/%s", site, c.name)
		if row.verdict, err = d.verify(ctx, target, c.name, res); err != nil {
			return err
		}
		d.pulls = append(d.pulls, row)
		d.say("    release %d: moved %s, held %s: %s", row.number, size(row.moved), size(row.held), row.verdict)
		if row.verdict != string(apply.Verified) {
			return fmt.Errorf("%s at %s is %s", c.name, site, row.verdict)
		}
	}
	return nil
}

// verify compares every byte of a target with the release, independently of the pull.
func (d *demo) verify(ctx context.Context, target, channel string, res *apply.Result) (string, error) {
	if res.Verdict != apply.Verified {
		return string(res.Verdict), nil
	}
	r, err := repo.Open(ctx, d.store, d.options())
	if err != nil {
		return "", err
	}
	rel, err := r.Release(ctx, channel, res.Number, res.Release)
	if err != nil {
		return "", err
	}
	pages := repo.NewMemoryPages()
	if err := r.Manifests(pages).Load(ctx, r.Index, rel.PageIDs(), repo.FetchOptions{}); err != nil {
		return "", err
	}
	totals, err := verify.Run(ctx, target, r.Manifests(pages).Entries(rel), verify.Options{}, func(verify.Finding) {})
	if err != nil {
		return "", err
	}
	if totals.Findings > 0 {
		return fmt.Sprintf("%d differences", totals.Findings), nil
	}
	return string(apply.Verified), nil
}
