package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

func newReleases(e *env) *cobra.Command {
	var f storeFlags
	cmd := e.command(verb{
		use:     "releases [flags] STORE [CHANNEL]",
		short:   "List the channels of a store, or the releases of a channel",
		long:    "Without CHANNEL, lists every channel and its newest release. With it, lists the channel's releases, newest first, back to the first or to the oldest that gc has kept.",
		example: "nightferry releases file:///srv/store\nnightferry releases file:///srv/store package",
		min:     1, max: 2,
		run: func(ctx context.Context, args []string) (err error) {
			s, err := e.open(ctx, args[0], &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			if len(args) == 2 {
				return s.listReleases(ctx, args[1])
			}
			return s.listChannels(ctx)
		},
	})
	f.add(cmd)
	return cmd
}

// listed is a release as it is listed.
type listed struct {
	Channel string              `json:"channel"`
	Number  trust.ReleaseNumber `json:"release"`
	Created time.Time           `json:"created"`
	Totals  manifest.Totals     `json:"totals"`
	Digest  trust.ReleaseDigest `json:"release_digest"`
	Tree    string              `json:"tree"`
	Signer  string              `json:"signer"`
	Note    string              `json:"note,omitempty"`
	Expires *time.Time          `json:"expires,omitempty"` // of a channel's newest: when its head must be signed again
	Expired bool                `json:"expired,omitempty"`
}

func describe(rel *repo.Release, h *repo.Head) listed {
	l := listed{Channel: rel.Channel, Number: rel.Number, Created: time.Unix(rel.Created, 0).UTC(), Totals: rel.Totals,
		Digest: rel.Digest, Tree: rel.Tree.String(), Signer: rel.Signer.String(), Note: rel.Note}
	if h != nil {
		expires := h.Expires.UTC()
		l.Expires, l.Expired = &expires, h.Expired
	}
	return l
}

func (s *session) listChannels(ctx context.Context) error {
	channels, err := s.Channels(ctx)
	if err != nil {
		return err
	}
	if !s.e.json && len(channels) > 0 {
		s.e.print("%-20s %8s %10s %9s  %s", "CHANNEL", "RELEASE", "FILES", "SIZE", "PUBLISHED")
	}
	for _, c := range channels {
		h, err := s.head(ctx, c)
		if err != nil {
			return err
		}
		rel, err := s.Release(ctx, c, h.Number, h.Release)
		if err != nil {
			return err
		}
		s.e.event("release", describe(rel, h))
		if !s.e.json {
			s.e.print("%-20s %8d %10s %9s  %s%s", shown(c), rel.Number, group(rel.Totals.Files), size(rel.Totals.Bytes), stamp(time.Unix(rel.Created, 0)), expiry(h))
		}
	}
	if len(channels) == 0 {
		s.e.summary("no channel has a release yet")
	}
	return nil
}

func expiry(h *repo.Head) string {
	if h.Expired {
		return "  (expired)"
	}
	return ""
}

func (s *session) listReleases(ctx context.Context, channel string) error {
	h, err := s.head(ctx, channel)
	if err != nil {
		return err
	}
	if !s.e.json {
		s.e.print("%8s %10s %9s  %-20s  %-8s  %s", "RELEASE", "FILES", "SIZE", "PUBLISHED", "SIGNER", "NOTE")
	}
	return s.History(ctx, channel, h, func(rel *repo.Release) (bool, error) {
		head := h
		if rel.Number != h.Number {
			head = nil
		}
		s.e.event("release", describe(rel, head))
		if !s.e.json {
			s.e.print("%8d %10s %9s  %-20s  %-8s  %s", rel.Number, group(rel.Totals.Files), size(rel.Totals.Bytes), stamp(time.Unix(rel.Created, 0)), rel.Signer.String()[:8], shown(rel.Note))
		}
		return true, nil
	})
}
