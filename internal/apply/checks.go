package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
)

// checksName is the file that stores Checks.
const checksName = stateDir + "/checks.json"

// maxSuspects bounds the paths that are kept by name; when there are more,
// every file is suspect.
const maxSuspects = 10_000

// Checks records findings of checks of a target and the progress of the pass under way. A [Run] reads the bytes of
// every suspect, regardless of its size and times. It forgets the suspects when the folder is verified.
type Checks struct {
	Began    int64     `json:"began,omitempty"`  // Unix seconds: start of the pass under way; 0: none is under way
	Cursor   string    `json:"cursor,omitempty"` // the pass has read all up to and including this path
	Done     int64     `json:"done,omitempty"`   // Unix seconds: start of the last complete pass
	All      bool      `json:"all,omitempty"`    // every file is suspect
	Suspects []Suspect `json:"suspects,omitempty"`
	Parts    []Part    `json:"parts,omitempty"` // large files that the pass has read in part

	Applied *Applied `json:"applied,omitempty"` // nil: no release was applied
	// Unowned: the record of the files that releases have put there is lost. Files that a release dropped can then
	// not be distinguished from the site's own.
	Unowned bool `json:"unowned,omitempty"`
}

// Part mirrors verify.Part; this package only stores it.
type Part struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	MTime  int64         `json:"mtime"`
	Offset int64         `json:"offset"`
	State  []byte        `json:"state"`
}

// Suspect is a path at which the target was found to differ.
type Suspect struct {
	Path string `json:"path"`
	Why  string `json:"why"` // the problem, one word, ": " and the detail
}

// Applied names the release that was applied last, in case the catalogue is lost.
type Applied struct {
	Number  trust.ReleaseNumber `json:"release"`
	Release trust.ReleaseDigest `json:"release_digest"`
}

// Any reports whether anything is suspect.
func (c *Checks) Any() bool { return c.All || len(c.Suspects) > 0 }

// Why returns why a path is suspect, and whether it is.
func (c *Checks) Why(path string) (string, bool) {
	i, found := slices.BinarySearchFunc(c.Suspects, path, func(s Suspect, p string) int { return scan.Compare(s.Path, p) })
	if !found {
		return "", c.All
	}
	return c.Suspects[i].Why, true
}

// Suspect adds a path or replaces its entry. Beyond maxSuspects paths it marks every file as suspect.
func (c *Checks) Suspect(path, why string) {
	i, found := slices.BinarySearchFunc(c.Suspects, path, func(s Suspect, p string) int { return scan.Compare(s.Path, p) })
	switch {
	case found:
		c.Suspects[i].Why = why
	case len(c.Suspects) >= maxSuspects:
		c.All = true
	default:
		c.Suspects = slices.Insert(c.Suspects, i, Suspect{path, why})
	}
}

// ClearSuspects forgets the suspects.
func (c *Checks) ClearSuspects() { c.All, c.Suspects = false, nil }

// readChecks reads the file that stores Checks. A damaged one is an errChecks. If it is missing beside a catalogue, every file
// is suspect.
func readChecks(root *durable.Root) (*Checks, error) {
	f, err := root.Open(checksName)
	if errors.Is(err, fs.ErrNotExist) {
		return restoreChecks(root, new(Checks))
	}
	if durable.IsBlocked(err) {
		return nil, fmt.Errorf("%w: %w", errChecks, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %q: %w", checksName, err)
	}
	c := new(Checks)
	sorted := func(a, b Suspect) int { return scan.Compare(a.Path, b.Path) }
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %w", errChecks, err)
	}
	if !slices.IsSortedFunc(c.Suspects, sorted) {
		return nil, fmt.Errorf("%w: it is out of order", errChecks)
	}
	return c, nil
}

var errChecks = errors.New("the record of checks is damaged, so every file is read again")

// allSuspect replaces damaged Checks, so that damage never passes for a clean result.
func allSuspect() *Checks { return &Checks{All: true} }

// loadChecks reads the Checks of a locked target, and sets a damaged file aside.
func (t *targetDir) loadChecks() (err error) {
	t.checks, err = readChecks(t.root)
	if !errors.Is(err, errChecks) {
		return err
	}
	why := err
	if t.checks, err = restoreChecks(t.root, allSuspect()); err != nil {
		return err
	}
	if err := t.setAside(checksName, why); err != nil {
		return err
	}
	return writeChecks(t.root, t.checks)
}

// restoreChecks returns the Checks of a target whose own are lost, from its catalogue. A target without a
// catalogue gets none.
func restoreChecks(root *durable.Root, none *Checks) (*Checks, error) {
	r, err := scan.OpenCatalogue(root, catalogueName)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if errors.Is(err, scan.ErrCorrupt) {
		return &Checks{All: true}, nil
	}
	if err != nil {
		return nil, err
	}
	h := r.Header()
	return &Checks{All: true, Unowned: h.Unowned, Applied: &Applied{h.Number, h.Release}}, r.Close()
}

func writeChecks(root *durable.Root, c *Checks) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode what checks have found: %w", err)
	}
	return root.WriteFile(checksName, b, 0o644)
}

// ReadChecks returns the stored Checks of a target. It takes no lock, so another process may be working on the
// target. For a missing folder it returns empty Checks.
func ReadChecks(target string) (*Checks, error) {
	root, err := durable.Open(target, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return new(Checks), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %q: %w", target, err)
	}
	c, err := readChecks(root)
	if errors.Is(err, errChecks) {
		c, err = allSuspect(), nil
	}
	return c, errors.Join(err, root.Close())
}

// ErrNothingApplied means that a folder has no record of an applied release.
var ErrNothingApplied = errors.New("there is no record of a release in this folder")

// Inspection holds a target's lock while the target is compared with its catalogue. It writes only to nightferry's
// own folder.
type Inspection struct {
	scan.Header
	Checks *Checks // Save stores changes made here

	target *targetDir
	done   func() error
	cats   []*scan.CatalogueReader
}

// Inspect locks a target for this process. It uses only Channel, Now, Root and OnEvent of the options. It returns
// [ErrNothingApplied] if there is no record of a release, scan.ErrCorrupt if that was damaged and is now set aside, and
// [ErrUnfinished] if [Recover] or a [Run] must first finish an interrupted commit.
func Inspect(target string, o Options) (*Inspection, error) {
	// A folder without any record is left as it is: it may be a mount point.
	found, err := findTarget(target)
	if err == nil && !found.recorded {
		err = ErrNothingApplied
	}
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", target, err)
	}
	s, done, err := openSite(target, o)
	if err != nil {
		return nil, err
	}
	x := &Inspection{target: s.target, done: done}
	if err := x.openApplied(); err != nil {
		return nil, errors.Join(fmt.Errorf("check %q: %w", target, err), x.Close())
	}
	return x, nil
}

func (x *Inspection) openApplied() error {
	switch _, err := x.target.root.Lstat(journalName); {
	case err == nil:
		return ErrUnfinished
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	cat, err := x.target.openRecords(catalogueName)
	if errors.Is(err, scan.ErrCorrupt) {
		return errors.Join(err, x.target.setAside(catalogueName, err))
	}
	if err != nil {
		return err
	}
	defer cat.close()
	h := cat.header()
	if h == nil {
		return ErrNothingApplied
	}
	if h.Channel != x.target.o.Channel {
		return fmt.Errorf("this folder holds channel %q, not %q", h.Channel, x.target.o.Channel)
	}
	x.Header, x.Checks = *h, x.target.checks
	return nil
}

// Entries streams the catalogue's entries in path order. checked is the time, in Unix seconds, when a file's bytes
// were last read and found right.
func (x *Inspection) Entries() (func() (e *manifest.Entry, checked int64, err error), error) {
	r, err := scan.OpenCatalogue(x.target.root, catalogueName)
	if err != nil {
		return nil, err
	}
	x.cats = append(x.cats, r)
	return func() (*manifest.Entry, int64, error) {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
		e, err := rec.Entry()
		return e, rec.Checked, err
	}, nil
}

// Save makes Checks durable.
func (x *Inspection) Save() error { return writeChecks(x.target.root, x.Checks) }

// Passed ends the pass: it records that every file that is not suspect was read since Checks.Began. It closes all
// streams of Entries.
func (x *Inspection) Passed(ctx context.Context) error {
	old, err := x.target.openRecords(catalogueName)
	if err != nil {
		return err
	}
	w, err := scan.CreateCatalogue(x.target.root, catalogueName)
	if err != nil {
		old.close()
		return err
	}
	for err == nil {
		var rec *scan.Record
		if rec, err = old.peek(); rec == nil || err != nil {
			break
		}
		old.pop()
		if _, suspect := x.Checks.Why(rec.Path); rec.Kind == scan.File && !suspect {
			rec.Checked = max(rec.Checked, x.Checks.Began)
		}
		if err = ctx.Err(); err == nil {
			err = w.Add(*rec)
		}
	}
	// Windows does not replace a file that is open.
	old.close()
	if err = errors.Join(err, x.closeStreams()); err == nil {
		x.Unowned = x.Checks.Unowned
		err = w.Commit(x.Header)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("record that all was read: %w", err), w.Abort())
	}
	x.Checks.Done, x.Checks.Began, x.Checks.Cursor = x.Checks.Began, 0, ""
	x.Checks.Parts = nil
	return x.Save()
}

func (x *Inspection) closeStreams() error {
	var errs []error
	for _, r := range x.cats {
		errs = append(errs, r.Close())
	}
	x.cats = nil
	return errors.Join(errs...)
}

// Close releases the target.
func (x *Inspection) Close() error { return errors.Join(x.closeStreams(), x.done()) }

// clearVerified forgets the suspects after a run that verified the whole folder. A run with Rehash also counts as a
// pass, because it has read every byte.
func (s *site) clearVerified() error {
	if s.report.res.Verdict != Verified || s.o.DryRun || !s.target.checks.Any() && !s.o.Rehash {
		return nil
	}
	s.target.checks.ClearSuspects()
	if s.o.Rehash {
		s.target.checks.Done, s.target.checks.Began, s.target.checks.Cursor, s.target.checks.Parts = s.report.began, 0, "", nil
	}
	return writeChecks(s.target.root, s.target.checks)
}

// isDoubted reports whether a file's bytes must be read, regardless of its stat.
func (t *targetDir) isDoubted(path string) bool {
	if t.o.Rehash {
		return true
	}
	_, suspect := t.checks.Why(path)
	return suspect
}

// repairReason returns the reason for a repair: the finding of a check if there is one, else problem and detail.
func (t *targetDir) repairReason(path, problem, detail string) error {
	if why, _ := t.checks.Why(path); why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("%s: %s", problem, detail)
}
