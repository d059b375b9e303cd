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
)

// checksName is what is known of a target beyond its catalogue.
const checksName = stateDir + "/checks.json"

// maxSuspects bounds the paths that are kept by name; when there are more,
// every file is suspect.
const maxSuspects = 10_000

// Checks is what checks of a target have found, and how far the one under way
// has come. A [Run] reads the bytes of every suspect, whatever its size and
// times say, and forgets them when the folder is verified.
type Checks struct {
	Began    int64     `json:"began,omitempty"`  // Unix seconds: when the pass under way began; 0: none is
	Cursor   string    `json:"cursor,omitempty"` // the pass has read all up to and including this path
	Done     int64     `json:"done,omitempty"`   // Unix seconds: when the last whole pass began
	All      bool      `json:"all,omitempty"`    // every file is suspect
	Suspects []Suspect `json:"suspects,omitempty"`
	Parts    []Part    `json:"parts,omitempty"` // large files that the pass has read in part

	Applied *Applied `json:"applied,omitempty"` // nil: none was
	// Unowned: the record of what releases have put there is lost. Files that a
	// release dropped cannot be told from the site's own.
	Unowned bool `json:"unowned,omitempty"`
}

// Part is verify.Part, which this package only keeps.
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
	Number  uint64        `json:"number"`
	Release digest.Digest `json:"release"`
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

// Suspect adds a path, in place of what was known of it.
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

// clear forgets the suspects: all of the folder is as it should be.
func (c *Checks) clear() { c.All, c.Suspects = false, nil }

// readChecks never takes a damaged file for a good report: then all is suspect.
func readChecks(root *durable.Root) (*Checks, error) {
	f, err := root.Open(checksName)
	if errors.Is(err, fs.ErrNotExist) {
		return new(Checks), nil
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
	if json.Unmarshal(b, c) != nil || !slices.IsSortedFunc(c.Suspects, sorted) {
		return &Checks{All: true}, nil
	}
	return c, nil
}

func writeChecks(root *durable.Root, c *Checks) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode what checks have found: %w", err)
	}
	return root.WriteFile(checksName, b, 0o644)
}

// ReadChecks tells, beside whoever works on the target, what checks of it have
// found. A folder that is not there has no checks.
func ReadChecks(target string) (*Checks, error) {
	root, err := durable.Open(target, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return new(Checks), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %q: %w", target, err)
	}
	c, err := readChecks(root)
	return c, errors.Join(err, root.Close())
}

// ErrNothingApplied says that a folder has no record of what was applied.
var ErrNothingApplied = errors.New("there is no record of a release in this folder")

// Inspection holds a target, so that nobody changes it while it is compared
// with what was applied. Nothing but nightferry's own folder is written to.
type Inspection struct {
	scan.Header
	Checks *Checks // what is changed here Save keeps

	s    *site
	done func() error
	cats []*scan.CatalogueReader
}

// Inspect takes a target for this process. Of the options it takes Channel, Now
// and Root. Errors are [ErrNothingApplied]; and
// [ErrUnfinished] where a commit is to be finished first, which a [Run] does.
func Inspect(target string, o Options) (*Inspection, error) {
	// A folder without any record is left as it is: it may be a mount point.
	there, err := has(target, memoryName)
	if err == nil && !there {
		err = ErrNothingApplied
	}
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", target, err)
	}
	s, done, err := open(target, o)
	if err != nil {
		return nil, err
	}
	x := &Inspection{s: s, done: done}
	if err := x.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("check %q: %w", target, err), x.Close())
	}
	return x, nil
}

func (x *Inspection) begin() error {
	switch _, err := x.s.root.Lstat(journalName); {
	case err == nil:
		return ErrUnfinished
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	cat, err := x.s.openRecords(catalogueName)
	if err != nil {
		return err
	}
	defer cat.close()
	h := cat.header()
	if h == nil {
		return ErrNothingApplied
	}
	if h.Channel != x.s.o.Channel {
		return fmt.Errorf("this folder holds channel %q, not %q", h.Channel, x.s.o.Channel)
	}
	x.Header, x.Checks = *h, x.s.checks
	return nil
}

// Entries streams what was applied, in path order, with the Unix seconds when
// each file's bytes were last read and found right.
func (x *Inspection) Entries() (func() (e *manifest.Entry, checked int64, err error), error) {
	r, err := scan.OpenCatalogue(x.s.root, catalogueName)
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
func (x *Inspection) Save() error { return writeChecks(x.s.root, x.Checks) }

// Passed records that a pass has read every file that is not suspect since
// Checks.Began, and ends the pass. No stream of Entries may be used after it.
func (x *Inspection) Passed(ctx context.Context) error {
	old, err := x.s.openRecords(catalogueName)
	if err != nil {
		return err
	}
	w, err := scan.CreateCatalogue(x.s.root, catalogueName)
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
	// Windows replaces no file that anybody has open.
	old.close()
	if err = errors.Join(err, x.closeStreams()); err == nil {
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

// Close lets the target go.
func (x *Inspection) Close() error { return errors.Join(x.closeStreams(), x.done()) }

// verified forgets the suspects once a run has proven the whole folder; one
// that has read every byte was a pass, too.
func (s *site) verified() error {
	if s.res.Verdict != Verified || s.o.DryRun || !s.checks.Any() && !s.o.Rehash {
		return nil
	}
	s.checks.clear()
	if s.o.Rehash {
		s.checks.Done, s.checks.Began, s.checks.Cursor, s.checks.Parts = s.began, 0, "", nil
	}
	return writeChecks(s.root, s.checks)
}

// doubted reports whether a file's bytes must be read, whatever its stat says.
func (s *site) doubted(path string) bool {
	if s.o.Rehash {
		return true
	}
	_, suspect := s.checks.Why(path)
	return suspect
}

// because says why what was put at a path had to be repaired.
func (s *site) because(path, problem, detail string) error {
	if why, _ := s.checks.Why(path); why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("%s: %s", problem, detail)
}
