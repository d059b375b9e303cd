package record

import (
	"time"

	"nightferry/internal/durable"
)

// Access says who may read one domain's logs.
type Access struct {
	// Group that may read: a name or a number on Unix, a name or a SID on
	// Windows. Empty: only the Core's own account (and on Windows the
	// administrators).
	Group string
}

// Logs is the folder of all logs. It is safe for use by several goroutines.
type Logs struct {
	root *durable.Root
}

// Open opens the folder of all logs, and makes it when it is missing.
func Open(dir string) (*Logs, error) { panic("later") }

// Close releases the folder.
func (l *Logs) Close() error { panic("later") }

// Prepare makes each domain's folder, and the Core's own (domain "core"), and
// gives what is missing its access. A folder whose access somebody has changed
// by hand is left as it is and reported in changed: the domain, and how it
// differs.
func (l *Logs) Prepare(domains map[string]Access) (changed map[string]string, err error) {
	panic("later")
}

// Repair gives a domain's folder, and all below it, the access again.
func (l *Logs) Repair(domain string, a Access) error { panic("later") }

// Create begins a run's log. Nothing is to be seen of it until Close; an older
// log of the same run is then replaced.
func (l *Logs) Create(p Place, h Header) (*Writer, error) { panic("later") }

// Writer writes one log. It is for one goroutine.
type Writer struct{}

// Line adds a file's line.
func (w *Writer) Line(f File) error { panic("later") }

// Close adds the closing line, makes the file durable and shows it under its
// name. After an error there is no new file.
func (w *Writer) Close(e End) error { panic("later") }

// Abort forgets the log; after Close it does nothing.
func (w *Writer) Abort() { panic("later") }

// Log is one log file, as List finds it.
type Log struct {
	Place
	Path string // slash-separated, relative to the logs' folder
	Size int64
}

// Filter narrows a list; zero fields narrow nothing.
type Filter struct {
	Domain, Site, Channel, Run string
	Core                       bool      // only the Core's own logs
	Since, Until               time.Time // by the date folder, in whole days; Until is excluded
}

// List calls fn for each log, by path, until fn returns an error.
func (l *Logs) List(f Filter, fn func(Log) error) error { panic("later") }

// Scan reads a log and calls fn for each file's line, until fn returns an
// error. A file that is not a whole log is ErrDamaged, after its good lines.
func (l *Logs) Scan(path string, fn func(File) error) (Header, End, error) { panic("later") }

// Purged is what a Purge removed.
type Purged struct {
	Files   int64 `json:"files"`
	Bytes   int64 `json:"bytes"`
	Folders int64 `json:"folders"`
}

// Purge removes the logs of days that ended longer than keep before now, and
// the folders that are empty then. It touches only what is named as a log, goes
// on after an error and returns all of them.
func (l *Logs) Purge(now time.Time, keep time.Duration) (Purged, error) { panic("later") }

// Printable makes a text safe to print: what a terminal would obey, or what
// would make a text look like another one (control and formatting characters,
// line separators, bytes that are not UTF-8), is written as an escape.
func Printable(s string) string { panic("later") }
