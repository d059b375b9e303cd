package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/measure"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/wire"
)

// LastRuns returns the newest run of each site and channel among the latest runs.
func (v *Service) LastRuns(ctx context.Context, s fleet.Scope) (map[Row]*ledger.Run, error) {
	runs, err := v.o.Runs.Runs(ctx, ledger.RunFilter{Domain: s.Domain, Site: s.Site, Channel: s.Channel, Limit: 10_000})
	out := map[Row]*ledger.Run{}
	for i := range runs {
		key := Row{wire.Address{Domain: runs[i].Domain, Site: runs[i].Site}, runs[i].Channel}
		if out[key] == nil {
			out[key] = &runs[i]
		}
	}
	return out, err
}

// Runs lists runs, the newest first.
func (v *Service) Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	return v.o.Runs.Runs(ctx, f)
}

// RunShow calls begin with the run, then fn for each file, until one returns an error. id may be a
// unique prefix. With all, it includes every file of the release, in path order, with unchanged
// files taken from the manifest. Files that are not in the release come last.
func (v *Service) RunShow(ctx context.Context, id string, all bool, begin func(RunDetail) error, fn func(record.File) error) error {
	run, err := v.findRun(ctx, id)
	if err != nil {
		return err
	}
	d := RunDetail{Run: *run, Header: v.o.RunLog.Header(ctx, run)}
	if !run.Rendered.IsZero() {
		d.Log = logPath(run)
	}
	if rel, err := v.o.Runs.Release(ctx, run.Channel, run.Number); err == nil && rel.Digest == run.Release {
		d.Files, d.Bytes = rel.Files, rel.Bytes
	}
	if x, _ := v.o.Sites.Site(wire.Address{Domain: run.Domain, Site: run.Site}); run.Finished.IsZero() {
		if p, ok := x.Progress[run.Channel]; ok && p.Run == run.ID {
			d.Progress = &p.Progress
		}
	}
	measured := measure.Cache{Records: v.o.Measured}
	if d.Measured, err = measured.Of(ctx, &ledger.Holding{Channel: run.Channel, Number: run.Number, Release: run.Release}); err != nil {
		return err
	}
	if err := begin(d); err != nil {
		return err
	}
	sent := int64(0)
	if run.Rendered.IsZero() {
		err := v.o.RunLog.Lines(ctx, run, all, func(f record.File) error { sent++; return fn(f) })
		if !errors.Is(err, ledger.ErrRendered) {
			return err
		}
		// The log was written in the meantime, with the same lines in the same order.
		if run, err = v.findRun(ctx, run.ID.String()); err != nil {
			return err
		}
		d.Log = logPath(run)
	}
	rest := func(f record.File) error {
		if sent > 0 {
			sent--
			return nil
		}
		return fn(f)
	}
	if !all || run.Site == "" {
		_, _, err := v.o.Logs.Scan(d.Log, rest)
		return orGone(run, err)
	}
	return v.allLines(ctx, run, d.Log, rest)
}

func (v *Service) findRun(ctx context.Context, id string) (*ledger.Run, error) {
	found, err := v.o.Runs.FindRuns(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("run %q: %w", id, ledger.ErrNotFound)
	case len(found) > 1:
		return nil, fmt.Errorf("run %q: %d runs or more begin so: give more digits", id, len(found))
	}
	return &found[0], nil
}

// orGone names the run whose log file is not there any more.
func orGone(run *ledger.Run, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("run %s: its log file %s is gone, removed by its age or by hand: %w", run.ID, logPath(run), fs.ErrNotExist)
}

func logPath(run *ledger.Run) string {
	date, name := run.Started.UTC().Format(time.DateOnly), run.ID.String()+".jsonl"
	if run.Domain == "" {
		return path.Join("core", run.Channel, date, name)
	}
	return path.Join(run.Domain, run.Site, run.Channel, date, name)
}

// allLines adds to a log's lines the files that the log does not name.
func (v *Service) allLines(ctx context.Context, run *ledger.Run, log string, fn func(record.File) error) error {
	told := map[string]record.File{}
	var order []string
	if _, _, err := v.o.Logs.Scan(log, func(f record.File) error {
		told[f.Path] = f
		order = append(order, f.Path)
		return nil
	}); err != nil {
		return orGone(run, err)
	}
	rel, err := v.o.Runs.Release(ctx, run.Channel, run.Number)
	if err != nil || rel.Digest != run.Release {
		return fmt.Errorf("run %s: its release %d is not in the ledger: only the log's lines can be shown", run.ID, run.Number)
	}
	_, next, err := v.o.Releases.Entries(ctx, releases.Key{Channel: run.Channel, Number: run.Number, Digest: run.Release})
	if err != nil {
		return err
	}
	for {
		e, err := next()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		f, ok := told[e.Path]
		if ok {
			delete(told, e.Path)
		} else {
			f = v.o.RunLog.Untold(run, e)
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	for _, p := range order {
		if f, ok := told[p]; ok {
			if err := fn(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// OpenLog opens the log file of a run. id may be a unique prefix. A run that has not ended has no log: fs.ErrNotExist.
func (v *Service) OpenLog(ctx context.Context, id string) (*ledger.Run, io.ReadSeekCloser, error) {
	run, err := v.findRun(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if run.Rendered.IsZero() {
		return run, nil, fmt.Errorf("run %s: its log file is not written yet: %w", run.ID, fs.ErrNotExist)
	}
	f, err := v.o.Logs.Open(logPath(run))
	return run, f, orGone(run, err)
}

// Logs lists log files. Paths are relative to LogsDir.
func (v *Service) Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error {
	return v.o.Logs.List(f, func(l record.Log) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(l)
	})
}
