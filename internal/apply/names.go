package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// unheldError means that the target's file system cannot hold a name of the release.
type unheldError struct {
	path  string
	other string // the name that the file system takes it for; "": unknown
}

func (e *unheldError) Error() string {
	if e.other == "" {
		return fmt.Sprintf("the target's file system cannot hold the name %q: it lists it under another one; rename it in the source", e.path)
	}
	return fmt.Sprintf("the target's file system takes the names %q and %q for one: rename one of them in the source", e.path, e.other)
}

// namesOf returns the translation of the names that the target lists, or nil if it needs none. A record of the
// catalogue comes before an entry of the release, because its file is the one on disk. entries may be nil.
func (t *targetDir) namesOf(catalogue string, entries manifest.Next) (*scan.Names, error) {
	names := scan.NewNames(t.keeps)
	if names == nil {
		return nil, nil
	}
	cat, err := t.openRecords(catalogue)
	if err != nil {
		return nil, err
	}
	defer cat.close()
	for {
		rec, err := cat.peek()
		if err != nil {
			return nil, err
		}
		if rec == nil {
			break
		}
		names.Add(rec.Path)
		cat.pop()
	}
	if entries == nil {
		return names, nil
	}
	return names, names.AddAll(entries)
}

// failUnheld fails each new entry whose name the target's file system takes for another name, and keeps the file that
// has this other name: a run may have written it. known means that the target has a catalogue. A first pull looks only
// where names fold, because the commit replaces no file that it does not expect.
func (t *targetDir) failUnheld(changes []change, known bool) error {
	if !known && !t.keeps.Fold && !t.keeps.Compose {
		return nil
	}
	for i := range changes {
		c := &changes[i]
		if c.state == stDropped || !c.makesName() {
			continue
		}
		info, err := t.root.Lstat(c.path)
		if err != nil {
			continue // the name is free, or the commit reports why it is not
		}
		other, err := t.listedAs(c.path, info)
		if err != nil {
			return err
		}
		folded := durable.Traits{Fold: true, Compose: true}
		switch {
		case other == c.path: // made since the walk: the commit does not replace it
			continue
		case other != "" && scan.NameKey(&folded, other) == scan.NameKey(&folded, c.path):
			if j := changeAt(changes, other); t.keeps.Fold || j != nil && (j.act == actRemove || j.act == actRmdir) {
				continue // findAliases gives it the release's name
			}
			dropChange(changes, int32(i), runs.FileFailed, fmt.Errorf("%w: the site's own %q has this name in another case: move it away", fs.ErrExist, other))
			continue
		}
		cause := &unheldError{path: c.path, other: other}
		dropChange(changes, int32(i), runs.FileFailed, cause)
		for k, found := changeIndex(changes, other); found && k < len(changes) && (changes[k].path == other || isBelow(other, changes[k].path)); k++ {
			dropChange(changes, int32(k), runs.FileFailed, cause)
		}
	}
	return nil
}

// maxSiblings bounds the entries of a folder among which listedAs looks for a file by its identity.
const maxSiblings = 10_000

// listedAs returns the path under which the target lists an entry that exists, or "" if it is not found.
func (t *targetDir) listedAs(name string, info fs.FileInfo) (string, error) {
	dir, base := path.Split(name)
	list, err := t.root.ReadDir(path.Clean(dir))
	if err != nil {
		return "", err
	}
	folded := durable.Traits{Fold: true, Compose: true}
	alike := ""
	for _, e := range list {
		if e.Name() == base {
			return name, nil
		}
		if scan.NameKey(&folded, e.Name()) == scan.NameKey(&folded, base) {
			alike = dir + e.Name()
		}
	}
	if alike != "" || len(list) > maxSiblings {
		return alike, nil
	}
	for _, e := range list {
		other, err := t.root.Lstat(dir + e.Name())
		if err == nil && os.SameFile(info, other) {
			return dir + e.Name(), nil
		}
	}
	return "", nil
}

// noteAltered handles an entry that this run has put in its place and that the target does not list. If the entry
// exists, its name was altered: later runs translate the listed names.
func (f *final) noteAltered(rec *scan.Record) error {
	info, err := f.target.root.Lstat(rec.Path)
	if err != nil {
		return errNotLeft
	}
	other, err := f.target.listedAs(rec.Path, info)
	if err != nil || other == rec.Path {
		return errNotLeft
	}
	if !f.target.keeps.Alters {
		f.target.keeps.Alters = true
		if err := durable.WriteTraits(f.target.root, traitsName, f.target.keeps); err != nil {
			return errors.Join(errNotLeft, err)
		}
	}
	return &unheldError{path: rec.Path, other: other}
}
