package apply

import (
	"crypto/rand"
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

// makeRoom sets aside entries of the wrong kind in nightferry's own folder, such as a folder that has the name of a
// file. Files that carry proof, such as the catalogue, are left to the code that rebuilds them.
func (t *targetDir) makeRoom() error {
	for _, name := range []string{traitsName, beforeName, nextName, movedName} {
		if err := t.makeRoomFor(name, false); err != nil {
			return err
		}
	}
	for _, name := range []string{pagesDir, stageDir, asideDir} {
		if err := t.makeRoomFor(name, true); err != nil {
			return err
		}
	}
	return errors.Join(t.clearShards(pagesDir), t.clearShards(stageDir))
}

// clearShards moves entries that are not folders out of a folder of folders, whose content is swept.
func (t *targetDir) clearShards(name string) error {
	list, err := t.root.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		to := asideDir + "/" + rand.Text()
		if err := t.root.MkdirAll(to, 0o755); err != nil {
			return err
		}
		from := name + "/" + e.Name()
		to += "/" + e.Name()
		if err := t.root.Rename(from, to); err != nil {
			return err
		}
		t.report.emitAside(from, to, errNotFolder)
	}
	return err
}

var errNotFolder = errors.New("it is not a folder")

func (t *targetDir) makeRoomFor(name string, dir bool) error {
	to, err := durable.MakeRoom(t.root, name, dir)
	if to == "" {
		return err
	}
	why := durable.ErrNotRegular
	if dir {
		why = errNotFolder
	}
	t.report.emitAside(name, to, why)
	return err
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
		if err := errors.Join(t.makeRoomFor(name, false), t.removeFile(name)); err != nil {
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
	old, err := durable.ReadTraits(t.root, traitsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if err := t.setAside(traitsName, err); err != nil {
			return err
		}
	}
	if err == nil {
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
