package runs

// Outcome is the result for one file or folder of a run. Logs, tables and JSON
// show its word; wire messages carry its byte.
type Outcome string

// The outcomes that a site reports.
const (
	FileAdded    Outcome = "added"
	FileChanged  Outcome = "changed"  // content, mode or time differ from the release before
	FileMoved    Outcome = "moved"    // renamed, no byte copied
	FileRepaired Outcome = "repaired" // differed from the release before, which had put it there
	FileDeleted  Outcome = "deleted"
	FileLocked   Outcome = "locked"  // not done: a program has it open
	FileExtra    Outcome = "extra"   // the site's own: left alone
	FileFailed   Outcome = "failed"  // not done, or could not be checked
	FileDiffers  Outcome = "differs" // a check found other content, and changed nothing
)

// The outcomes of files that no site reports.
const (
	FileUnchanged Outcome = "unchanged"
	FileUnreached Outcome = "unreached" // the run ended before it compared the file
	FileTouched   Outcome = "touched"   // a publish found the same bytes with another time or mode
	FileRemoved   Outcome = "removed"   // the source no longer has it
	FileSkipped   Outcome = "skipped"   // a publish left it out: a link or special file
)

// outcomes has one row for each outcome: its byte in a wire message, 0 if no
// site reports it, and its counter, nil if it is not counted. A wire message
// has four bits for the byte.
var outcomes = [...]struct {
	Outcome
	wire    byte
	counter func(*Counts) *int64
}{
	{FileAdded, 1, func(c *Counts) *int64 { return &c.Added }},
	{FileChanged, 2, func(c *Counts) *int64 { return &c.Changed }},
	{FileMoved, 3, func(c *Counts) *int64 { return &c.Moved }},
	{FileRepaired, 4, func(c *Counts) *int64 { return &c.Repaired }},
	{FileDeleted, 5, func(c *Counts) *int64 { return &c.Deleted }},
	{FileLocked, 6, func(c *Counts) *int64 { return &c.Locked }},
	{FileExtra, 7, func(c *Counts) *int64 { return &c.Extra }},
	{FileFailed, 8, func(c *Counts) *int64 { return &c.Failed }},
	{FileDiffers, 9, func(c *Counts) *int64 { return &c.Differs }},
	{FileUnchanged, 0, func(c *Counts) *int64 { return &c.Unchanged }},
	{FileTouched, 0, func(c *Counts) *int64 { return &c.Changed }},
	{FileRemoved, 0, func(c *Counts) *int64 { return &c.Deleted }},
	{FileUnreached, 0, nil}, // neither is part of the result
	{FileSkipped, 0, nil},
}

// Outcomes lists the outcomes.
func Outcomes() []Outcome {
	list := make([]Outcome, len(outcomes))
	for i, row := range outcomes {
		list[i] = row.Outcome
	}
	return list
}

// Byte returns the outcome's byte in wire messages, 0 if no site reports the
// outcome.
func (o Outcome) Byte() byte {
	for i := range outcomes {
		if outcomes[i].Outcome == o {
			return outcomes[i].wire
		}
	}
	return 0
}

// OutcomeOf is the inverse of Byte. It returns false for an unknown byte.
func OutcomeOf(b byte) (Outcome, bool) {
	for i := range outcomes {
		if b != 0 && outcomes[i].wire == b {
			return outcomes[i].Outcome, true
		}
	}
	return "", false
}

// Exception reports whether the ledger lists the file: it was not as the
// release has it, or still is not.
func (o Outcome) Exception() bool {
	return o == FileFailed || o == FileLocked || o == FileRepaired || o == FileDiffers
}

// Add counts one file with the outcome.
func (c *Counts) Add(o Outcome) {
	for i := range outcomes {
		if row := &outcomes[i]; row.Outcome == o && row.counter != nil {
			*row.counter(c)++
		}
	}
}
