package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
)

// Held is the last known release that was applied to a target, by the memory of the caller or of the Core.
type Held struct {
	Applied // zero: the release is not known
	// Replaced means that another machine has applied it. A folder that holds no file of the release is then new, and
	// is filled.
	Replaced bool
}

// EmptiedError means that a target that held a release no longer has a record of it, nor its files. The usual cause is
// a volume that is not mounted. Nothing was written.
type EmptiedError struct{ Target, Channel string }

func (e *EmptiedError) Error() string {
	return fmt.Sprintf("target %q held a release of %q, and nothing of that is left there", e.Target, e.Channel)
}

// Remedy returns the advice for the operator.
func (e *EmptiedError) Remedy() string {
	return "mount the target's volume; if the folder is meant to be filled anew, order that with --adopt"
}

// appliedRecords are the files of a target that exist only after a release was applied, or while its commit is under way. memory.json is
// not one: a run that failed before its commit leaves it, also in the mount point of an absent volume.
var appliedRecords = []string{catalogueName, catalogueName + ".damaged", beforeName, beforeName + ".damaged", journalName, checksName}

// foundTarget is the content of a target before a run.
type foundTarget struct {
	recorded bool // it has a record of an applied release
	empty    bool // it is missing, or holds no file except nightferry's own
}

// findTarget looks at a target. It creates nothing.
func findTarget(target string) (f foundTarget, err error) {
	root, err := durable.Open(target, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return foundTarget{empty: true}, nil
	}
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := checkFolder(root); err != nil {
		return f, err
	}
	for _, name := range appliedRecords {
		if _, err = root.Lstat(name); err == nil {
			return foundTarget{recorded: true}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	list, err := root.ReadDir(".")
	if err != nil {
		return f, err
	}
	f.empty = !slices.ContainsFunc(list, func(e fs.DirEntry) bool { return !slices.Contains(bareNames, e.Name()) })
	return f, nil
}

// bareNames are the names in the root of a volume that holds no files: the system makes them, or nightferry.
var bareNames = []string{stateDir, "lost+found", "System Volume Information", "$RECYCLE.BIN"}

// IsEmptied reports whether a target has neither a record of a release nor any file. It changes nothing.
func IsEmptied(target string) (bool, error) {
	f, err := findTarget(target)
	return err == nil && f.empty && !f.recorded, err
}

// checkKept returns an EmptiedError if Options.Held is set but the target is empty. Call it before anything is created
// in the target. unrecorded means that the target has files but no record: [site.checkUnmarked] decides.
func checkKept(target string, o Options) (unrecorded bool, err error) {
	if o.Held == nil || o.Adopt {
		return false, nil
	}
	f, err := findTarget(target)
	if err != nil || f.recorded {
		return false, err
	}
	if f.empty && !o.Held.Replaced {
		return false, &EmptiedError{Target: target, Channel: o.Channel}
	}
	return true, nil
}

// shareLeft is the share of a release's files that a target without a record must hold to be taken for the target that
// held a release: one in ten. A note in a mount point is not enough.
const shareLeft = 10

// holdsShare reports whether the target holds a share of the files of a release.
func (t *targetDir) holdsShare(next manifest.Next) (bool, error) {
	var files, found int64
	for {
		e, err := next()
		if err != nil {
			return false, err
		}
		if e == nil {
			return found > 0 && found*shareLeft >= files, nil
		}
		if e.Kind != manifest.File {
			continue
		}
		files++
		info, err := t.root.Lstat(e.Path)
		if err == nil && info.Mode().IsRegular() {
			found++
		}
	}
}

// checkFolder returns an error if something else than a folder has the name of nightferry's own folder in a target. It
// may be the site's own file.
func checkFolder(root *durable.Root) error {
	info, err := root.Lstat(stateDir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%w: %q in this target is nightferry's own folder, and is none here: rename it, then pull again", errNotFolder, stateDir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
