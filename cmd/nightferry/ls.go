package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/fleet"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

func newLs(e *env) *cobra.Command {
	var f storeFlags
	var number trust.ReleaseNumber
	cmd := e.command(verb{
		use:     "ls [flags] STORE CHANNEL [PATH]",
		short:   "List the files of a release",
		long:    "Lists every file and folder of a channel's newest release, or of the one that --release names, with mode, size and time; with PATH only that file, or that folder and all below it.",
		example: "nightferry ls file:///srv/store package\nnightferry ls --release 3 file:///srv/store package drivers/net",
		min:     2, max: 3,
		run: func(ctx context.Context, args []string) error {
			path := ""
			if len(args) == 3 {
				path = strings.TrimSuffix(args[2], "/")
			}
			return e.ls(ctx, args[0], args[1], path, number, &f)
		},
	})
	f.add(cmd)
	cmd.Flags().Uint64Var((*uint64)(&number), "release", 0, "list release `N` (default: the newest)")
	return cmd
}

// listedEntry is an entry as it is listed.
type listedEntry struct {
	Path   string    `json:"path"`
	Kind   string    `json:"kind"`
	Size   int64     `json:"size"`
	Mode   string    `json:"mode"`
	MTime  time.Time `json:"mtime,omitzero"`
	Digest string    `json:"digest,omitempty"`
}

func describeEntry(e *manifest.Entry) listedEntry {
	l := listedEntry{Path: e.Path, Kind: e.Kind.String(), Size: e.Size, Mode: fmt.Sprintf("%04o", e.Mode)}
	if e.Kind == manifest.File {
		l.MTime, l.Digest = time.Unix(0, e.MTime).UTC(), e.Digest.String()
	}
	return l
}

func (e *env) ls(ctx context.Context, rawURL, channel, path string, number trust.ReleaseNumber, f *storeFlags) (err error) {
	s, err := e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rel, err := s.release(ctx, channel, number)
	if err != nil {
		return err
	}
	next, pages, err := s.entries(ctx, rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pages.done()) }()
	defer e.long()()
	found, near := path == "", fleet.NewNearest(path)
	for {
		entry, err := next()
		if err != nil {
			return err
		}
		if entry == nil {
			break
		}
		if path != "" && entry.Path != path && !strings.HasPrefix(entry.Path, path+"/") {
			near.Add(entry.Path)
			continue
		}
		found = true
		e.event("entry", describeEntry(entry))
		if !e.json {
			e.print("%s", longLine(entry))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if !found {
		return &absentError{fmt.Sprintf("release %d of %q holds no %q", rel.Number, channel, shown(path)), nearRemedy(near, "nightferry ls without PATH lists all it holds")}
	}
	return nil
}

// longLine is an entry as ls -l would show it.
func longLine(e *manifest.Entry) string {
	mode := []byte("-rwxrwxrwx")
	if e.Kind == manifest.Dir {
		mode[0] = 'd'
	}
	for i := range 9 {
		if e.Mode>>(8-i)&1 == 0 {
			mode[1+i] = '-'
		}
	}
	if e.Kind == manifest.Dir {
		return fmt.Sprintf("%s %12s  %20s  %s/", mode, "-", "", shown(e.Path))
	}
	return fmt.Sprintf("%s %12s  %20s  %s", mode, group(e.Size), stamp(time.Unix(0, e.MTime)), shown(e.Path))
}

// nearRemedy is a remedy that begins with the most similar name, if there is one.
func nearRemedy(near *fleet.Nearest, remedy string) string {
	if s := near.Suggestion(); s != "" {
		return s + " " + remedy
	}
	return remedy
}
