// Package push reads a content folder and publishes it as the next release of a
// channel. Run first surveys the source and applies the guards, then cuts and
// stores new content, then signs. It needs no Core.
package push

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
)

// LinkPolicy defines how a push treats symbolic links, junctions, devices,
// pipes and sockets, which a release cannot hold.
type LinkPolicy uint8

const (
	// Refuse stops the push and lists them.
	Refuse LinkPolicy = iota
	// Skip leaves them out and reports each.
	Skip
)

// Options tune a push. Channel, Key, State and Now are required.
type Options struct {
	Channel  string
	Patterns *scan.Patterns // nil: everything
	Links    LinkPolicy

	MaxDelete       float64 // percent of the files of the previous release; 0: 25
	MaxDeleteFiles  int64   // maximum number of deleted files; 0: no limit
	AllowDeletes    bool    // allow more deletes than both limits
	AllowEmpty      bool    // allow a source without files
	AllowUnportable bool    // allow names that Windows cannot store
	AllowUnmounted  bool    // allow a source that lacks volumes of the last release

	// IgnoreInode takes a file of unchanged size, modification time and mode for unchanged. It is for sources whose
	// change times or inode numbers are not stable.
	IgnoreInode bool
	Rehash      bool // read every file, whatever its times

	// Reviewed is the tree that a dry run has shown: another one is not published. Zero: any is.
	Reviewed digest.Digest

	DryRun      bool // do everything except storing and publishing
	Connections int  // packs stored at once; 0: 3

	Key     ed25519.PrivateKey // signs the release and the head
	State   *durable.Root      // folder of this repository's caches on this machine
	Subject halt.Subject       // identity that halt orders are matched against
	Now     func() time.Time
	OnEvent func(Event) // called from one goroutine at a time; may be nil
}

// Event reports a file's outcome, or with an empty Path the progress of the
// run. An unchanged file has an event only if it has a Cause.
type Event struct {
	Path     string        `json:"path,omitempty"`
	Outcome  runs.Outcome  `json:"outcome,omitempty"`
	Cause    string        `json:"cause,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Digest   digest.Digest `json:"digest,omitzero"`
	Progress *Progress     `json:"progress,omitempty"`
}

// Progress counts the work of a run.
type Progress struct {
	Phase      string `json:"phase"`       // survey, store, publish
	Files      int64  `json:"files"`       // files decided so far
	TotalFiles int64  `json:"total_files"` // known once the survey is done
	Read       int64  `json:"read"`        // bytes read from the source, including incomplete files
	ToRead     int64  `json:"to_read"`     // total bytes to read, according to the survey
	New        int64  `json:"new"`         // bytes read that no pack contained yet
	Sent       int64  `json:"sent"`        // bytes stored, compressed
	Path       string `json:"path"`        // file that was read last
}

// Result of a push.
type Result struct {
	Number    trust.ReleaseNumber `json:"release"` // release number of the head afterwards; of a dry run, the number that it would have
	Digest    trust.ReleaseDigest `json:"release_digest,omitzero"`
	Unchanged bool                `json:"unchanged"` // the source equals the head's release
	DryRun    bool                `json:"dry_run,omitempty"`
	Totals    manifest.Totals     `json:"totals"`
	Tree      digest.Digest       `json:"tree"`
	Added     int64               `json:"added"`
	Changed   int64               `json:"changed"`
	Touched   int64               `json:"touched"`
	Removed   int64               `json:"removed"`
	Skipped   int64               `json:"skipped"`
	Read      int64               `json:"read"`  // bytes read from the source
	New       int64               `json:"new"`   // bytes that no pack contained yet
	Sent      int64               `json:"sent"`  // bytes stored, compressed
	Packs     int64               `json:"packs"` // packs stored
	Puts      int64               `json:"puts"`  // write requests made; of a dry run, those that a push would make
}

// GuardError means that a guard stopped the push before anything was published.
type GuardError struct {
	Guard string   // "empty", "deletes", "names", "links", "unmounted", "unreadable", "unstable", "reviewed"
	Why   string   // one line, with the remedy
	Paths []string // all affected paths, each with its reason
}

// Passing reports whether the same source may pass later without action by an operator, for example when a copy ends or
// a volume is mounted again.
func (e *GuardError) Passing() bool {
	switch e.Guard {
	case "empty", "unmounted", "unreadable", "unstable":
		return true
	}
	return false
}

func (e *GuardError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: nothing was published", e.Why)
	const shown = 20
	for i, p := range e.Paths {
		if i == shown && len(e.Paths) > shown+1 {
			fmt.Fprintf(&b, "\n  … and %d more", len(e.Paths)-shown)
			break
		}
		b.WriteString("\n  " + p)
	}
	return b.String()
}
