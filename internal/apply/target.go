package apply

import (
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/durable"
	"nightferry/internal/scan"
)

// targetDir is the target folder, and what is known of it.
type targetDir struct {
	o      *Options
	root   *durable.Root
	keeps  durable.Traits // the metadata that the target's file system keeps
	ignore *scan.Patterns // of Options.Ignore
	checks *Checks        // findings of checks
	report *reporter
}

// removeFile removes a file that may be gone already.
func (t *targetDir) removeFile(name string) error {
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweepState removes files that a killed run had not yet renamed to their final names, and leftovers of a finished
// commit.
func (t *targetDir) sweepState() error {
	list, err := t.root.ReadDir(stateDir)
	if err != nil {
		return err
	}
	var over []string
	for _, e := range list {
		switch name := stateDir + "/" + e.Name(); name {
		case journalName:
			return t.sweepTemps(list) // the commit is not finished
		case movedName, nextName, nextName + ".new", catalogueName + ".new":
			over = append(over, name)
		}
	}
	if len(over) > 0 {
		// A removed journal must not reappear without these files.
		if err := t.root.SyncDir(stateDir); err != nil {
			return err
		}
	}
	for _, name := range over {
		if err := t.removeFile(name); err != nil {
			return err
		}
	}
	return t.sweepTemps(list)
}

func (t *targetDir) sweepTemps(list []fs.DirEntry) error {
	for _, e := range list {
		if durable.IsTemp(e.Name()) {
			if err := t.root.RemoveAll(stateDir + "/" + e.Name()); err != nil { // a probe leaves a folder
				return err
			}
		}
	}
	return nil
}

// probeTraits probes which metadata the target's file system keeps. It records the result for checks, which must not
// write there.
func (t *targetDir) probeTraits() (err error) {
	if t.keeps, err = durable.ProbeTraits(t.root, stateDir); err != nil {
		return err
	}
	if old, err := durable.ReadTraits(t.root, traitsName); err == nil {
		t.keeps.Alters = t.keeps.Alters || old.Alters // a run may have found more than the probe
		if old == t.keeps {
			return nil
		}
	}
	return durable.WriteTraits(t.root, traitsName, t.keeps)
}

// readIgnore compiles the patterns of the files that the site may keep. A pattern that this version cannot parse,
// sent by a newer Core, ends the run: without it, a prune would delete files that the pattern protects.
func (t *targetDir) readIgnore() (err error) {
	if t.ignore, err = scan.ParsePatterns(nil, t.o.Ignore); err != nil {
		return fmt.Errorf("ignore: %w", err)
	}
	if t.keeps.Fold {
		t.ignore = t.ignore.FoldCase()
	}
	return nil
}
