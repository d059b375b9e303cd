package push

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

// survey is the result of walking the source before any file is read.
type survey struct {
	files          int64 // in the source now
	before         int64 // files in the previous release
	changed        int64 // new, removed or changed paths
	toRead         int64 // bytes of files that must be read
	removed        []string
	links          []string
	unreadable     []string
	names          []string
	nowhere        int // number of names that no site can hold
	notText        int // those of them that are not UTF-8
	removedFiles   int64
	skippedSpecial int64
	mounts         []string // folders at which another volume is mounted
}

// tally sums up a tree in path order and compares it with the previous release.
type tally struct {
	survey
	prev *before
	old  *known
}

func newTally(prev *before) (*tally, error) {
	t := &tally{prev: prev}
	return t, t.nextPrevious()
}

func (t *tally) nextPrevious() (err error) {
	t.old, err = t.prev.next()
	return err
}

// countPath counts a path of the tree and returns its entry in the previous release.
func (t *tally) countPath(path string, kind manifest.Kind) (old *known, err error) {
	for t.old != nil && manifest.ComparePaths(t.old.path, path) < 0 {
		if err := t.countDeleted(); err != nil {
			return nil, err
		}
	}
	if t.old != nil && t.old.path == path {
		if old = t.old; old.kind == manifest.File {
			t.before++
		}
		err = t.nextPrevious()
	}
	if kind != manifest.Dir {
		t.files++
	}
	return old, err
}

// countDeleted counts a path that is only in the previous release.
func (t *tally) countDeleted() error {
	t.changed++
	if t.old.kind == manifest.File {
		t.removedFiles++
		t.before++
	}
	t.removed = append(t.removed, t.old.path)
	return t.nextPrevious()
}

// countRest counts the paths of the previous release after the tree's last path.
func (t *tally) countRest() error {
	for t.old != nil {
		if err := t.countDeleted(); err != nil {
			return err
		}
	}
	return nil
}

// surveySource walks the source, compares it with the previous release and applies the guards. A push that will be refused thus
// stores nothing.
func (p *push) surveySource(ctx context.Context) (*survey, error) {
	prev, err := p.openPrevious(ctx)
	if err != nil {
		return nil, err
	}
	defer prev.close()
	s, err := newTally(prev)
	if err != nil {
		return nil, err
	}
	check := manifest.Checker{Portable: !p.o.AllowUnportable}
	err = p.walkSource(ctx, func(it scan.Item) error {
		if p.hasVanished(it.Err) {
			return nil
		}
		if it.Err != nil {
			s.unreadable = append(s.unreadable, fmt.Sprintf("%q: %v", it.Path, it.Err))
			return nil
		}
		if it.Kind == scan.Link || it.Kind == scan.Special {
			s.links = append(s.links, fmt.Sprintf("%q (%s)", it.Path, it.Kind))
			return nil
		}
		if why := p.checkName(&check, it); why != nil {
			s.names = append(s.names, why.Error())
			s.countNowhere(it.Path)
		}
		if it.Mount {
			s.mounts = append(s.mounts, it.Path)
		}
		old, err := s.countPath(it.Path, kindOf(it))
		if err != nil {
			return err
		}
		if old == nil || old.kind != kindOf(it) || old.stat == nil || !p.o.looksSame(it, *old.stat) || p.o.Rehash {
			s.changed++
			s.toRead += it.Stat.Size
		}
		if s.files&1023 == 0 {
			p.updateProgress(func(c *Progress) { c.Files = s.files })
			p.reportProgress("survey", false)
		}
		return nil
	})
	if err == nil {
		err = s.countRest()
	}
	if err != nil {
		return nil, err
	}
	s.skippedSpecial = int64(len(s.links))
	return &s.survey, p.applyGuards(&s.survey)
}

// countNowhere counts a refused name that no permission makes publishable.
func (s *survey) countNowhere(path string) {
	if manifest.CheckPath(path, false) == nil {
		return
	}
	s.nowhere++
	if !utf8.ValidString(path) {
		s.notText++
	}
}

// namesRemedy counts the refused names. It offers permission only where that helps.
func (s *survey) namesRemedy() string {
	remedy := "rename or exclude them, or, where no site runs Windows, use --allow-unportable-names"
	if s.nowhere > 0 {
		remedy = "rename or exclude them"
	}
	if s.notText > 0 {
		remedy += "; convmv -f ISO-8859-1 -t UTF-8 -r --notest DIR renames those that are not UTF-8"
	}
	switch s.nowhere {
	case 0:
		return fmt.Sprintf("%d names cannot be held by every site (%s)", len(s.names), remedy)
	case len(s.names):
		return fmt.Sprintf("%d names can be held by no site (%s)", s.nowhere, remedy)
	}
	return fmt.Sprintf("%d names cannot be held by every site, and %d of them by none (%s)", len(s.names), s.nowhere, remedy)
}

// looksSame reports whether a path looks unchanged. For a folder it compares only the mode, because the times of a
// folder change with its content.
func (o *Options) looksSame(it scan.Item, old scan.Stat) bool {
	if it.Kind == scan.Dir {
		return it.Stat.Mode == old.Mode
	}
	if o.IgnoreInode {
		old.ID, old.CTime = it.Stat.ID, it.Stat.CTime
	}
	return it.Stat == old
}

func (p *push) checkName(c *manifest.Checker, it scan.Item) error {
	if err := manifest.CheckPath(it.Path, !p.o.AllowUnportable); err != nil {
		return err
	}
	err := c.Add(&manifest.Entry{Path: it.Path, Kind: kindOf(it)})
	var path *manifest.PathError
	var alias *manifest.AliasError
	if errors.As(err, &path) || errors.As(err, &alias) {
		return err
	}
	// The checker does not know a folder whose own name was refused. Its content is not at fault.
	return nil
}

func kindOf(it scan.Item) manifest.Kind {
	if it.Kind == scan.Dir {
		return manifest.Dir
	}
	return manifest.File
}

func (p *push) applyGuards(s *survey) error {
	if err := p.checkMounts(s.mounts); err != nil {
		return err
	}
	switch {
	case len(s.unreadable) > 0:
		return &GuardError{Guard: "unreadable", Paths: s.unreadable,
			Why: fmt.Sprintf("%d names in the source cannot be read (give this account read access, or exclude them)", len(s.unreadable))}
	case len(s.links) > 0 && p.o.Links == Refuse:
		return &GuardError{Guard: "links", Paths: s.links,
			Why: fmt.Sprintf("the source holds %d links or special files, which a release cannot hold (exclude them, or leave them out with --links skip)", len(s.links))}
	case len(s.names) > 0:
		return &GuardError{Guard: "names", Paths: s.names, Why: s.namesRemedy()}
	case s.files == 0 && !p.o.AllowEmpty:
		return &GuardError{Guard: "empty",
			Why: fmt.Sprintf("the source %q holds no file (is it mounted? if it is meant to be empty, use --allow-empty)", p.source)}
	case p.o.AllowDeletes:
		return nil
	}
	percent := p.o.MaxDelete
	if percent == 0 {
		percent = 25
	}
	over := s.before > 0 && float64(s.removedFiles) > percent/100*float64(s.before)
	if over || p.o.MaxDeleteFiles > 0 && s.removedFiles > p.o.MaxDeleteFiles {
		limit := fmt.Sprintf("%g %%", percent)
		if p.o.MaxDeleteFiles > 0 {
			limit += fmt.Sprintf(" or %d files", p.o.MaxDeleteFiles)
		}
		return &GuardError{Guard: "deletes", Paths: s.removed,
			Why: fmt.Sprintf("the push would remove %d of %d files, more than %s (if that is meant, use --allow-deletes)", s.removedFiles, s.before, limit)}
	}
	return nil
}
