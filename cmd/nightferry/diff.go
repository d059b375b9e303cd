package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/verify"
)

func newDiff(e *env) *cobra.Command {
	var f storeFlags
	var quick bool
	cmd := e.command(verb{
		use:   "diff [flags] STORE CHANNEL A B | STORE CHANNEL A DIR",
		short: "Compare two releases, or a release and a folder",
		long: "Lists the differences from release A to release B, or from release A to the folder DIR: + for a path only in the second, - for a path only in the first, ~ for a changed path, with the change. " +
			"A number is a release; write ./12 for a folder of that name. The exit code is 3 when something differs.",
		example: "nightferry diff file:///srv/store package 3 4\nnightferry diff --quick file:///srv/store package 4 /srv/packages",
		min:     4, max: 4, subject: 1,
		run: func(ctx context.Context, args []string) error { return e.diff(ctx, args, quick, &f) },
	})
	f.add(cmd)
	cmd.Flags().BoolVar(&quick, "quick", false, "compare a folder's names, sizes, times and modes only")
	return cmd
}

// differ counts and tells differences.
type differ struct {
	e                       *env
	added, removed, changed int64
}

type difference struct {
	Path   string `json:"path"`
	Change string `json:"change"` // added, removed, changed
	What   string `json:"what,omitempty"`
}

func (d *differ) tell(path, change, what string) {
	sign := "~"
	switch change {
	case "added":
		sign = "+"
		d.added++
	case "removed":
		sign = "-"
		d.removed++
	default:
		d.changed++
	}
	d.e.event("difference", difference{path, change, what})
	if d.e.json {
		return
	}
	if what != "" {
		what = "  (" + shown(what) + ")"
	}
	d.e.print("%s %s%s", sign, shown(path), what)
}

func (d *differ) end() error {
	if d.added+d.removed+d.changed == 0 {
		d.e.summary("no difference")
		return nil
	}
	return &foundError{changes([]counted{{d.added, "added"}, {d.removed, "removed"}, {d.changed, "changed"}})}
}

func (e *env) diff(ctx context.Context, args []string, quick bool, f *storeFlags) (err error) {
	a, err := parseNumber(args[2])
	if err != nil {
		return usage("diff", "%w", err)
	}
	s, err := e.open(ctx, args[0], f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	older, err := s.release(ctx, args[1], a)
	if err != nil {
		return err
	}
	b, err := strconv.ParseUint(args[3], 10, 63)
	if err != nil {
		return s.diffFolder(ctx, older, args[3], quick)
	}
	newer, err := s.release(ctx, args[1], trust.ReleaseNumber(b))
	if err != nil {
		return err
	}
	return s.diffReleases(ctx, older, newer)
}

func (s *session) diffReleases(ctx context.Context, older, newer *repo.Release) (err error) {
	from, pagesA, err := s.entries(ctx, older)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pagesA.done()) }()
	to, pagesB, err := s.entries(ctx, newer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pagesB.done()) }()
	defer s.e.long()()
	d := differ{e: s.e}
	err = manifest.Diff(from, to, func(c manifest.Change) error {
		switch {
		case c.Old == nil:
			d.tell(c.New.Path, "added", sizeOf(c.New))
		case c.New == nil:
			d.tell(c.Old.Path, "removed", sizeOf(c.Old))
		default:
			d.tell(c.New.Path, "changed", changeOf(c))
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return d.end()
}

func sizeOf(e *manifest.Entry) string {
	if e.Kind == manifest.Dir {
		return "folder"
	}
	return size(e.Size)
}

// changeOf says in what two entries of one path differ.
func changeOf(c manifest.Change) string {
	var what []string
	switch {
	case c.Old.Kind != c.New.Kind:
		what = append(what, fmt.Sprintf("%s, was %s", c.New.Kind, c.Old.Kind))
	case c.Old.Size != c.New.Size:
		now, was := size(c.New.Size), size(c.Old.Size)
		if now == was {
			now, was = group(c.New.Size)+" B", group(c.Old.Size)+" B"
		}
		what = append(what, now+", was "+was)
	case c.Old.Digest != c.New.Digest:
		what = append(what, "content, "+size(c.New.Size))
	}
	if c.Old.Kind == c.New.Kind {
		if c.Old.MTime != c.New.MTime {
			what = append(what, "time")
		}
		if c.Old.Mode != c.New.Mode {
			what = append(what, fmt.Sprintf("mode %04o, was %04o", c.New.Mode, c.Old.Mode))
		}
	}
	return strings.Join(what, "; ")
}

func (s *session) diffFolder(ctx context.Context, rel *repo.Release, dir string, quick bool) (err error) {
	next, pages, err := s.entries(ctx, rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pages.done()) }()
	d := differ{e: s.e}
	// A path may have several problems: it is one difference.
	var last string
	var what []string
	flush := func() {
		if last != "" {
			d.tell(last, "changed", strings.Join(what, "; "))
		}
		last, what = "", nil
	}
	_, err = verify.Run(ctx, dir, next, verify.Options{Quick: quick}, func(f verify.Finding) {
		if f.Path != last {
			flush()
		}
		switch f.Problem {
		case verify.Missing:
			d.tell(f.Path, "removed", "")
		case verify.Extra:
			d.tell(f.Path, "added", "")
		default:
			last = f.Path
			what = append(what, fmt.Sprintf("%s: %s", f.Problem, f.Detail))
		}
	})
	if err != nil {
		return err
	}
	flush()
	return d.end()
}
