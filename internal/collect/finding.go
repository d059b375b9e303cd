package collect

import (
	"fmt"

	"nightferry/internal/trust"
)

// Severity of a finding.
type Severity string

// Severities.
const (
	// Damage: something that is needed is missing, altered or contradictory.
	Damage Severity = "damage"
	// Garbage: an object is stored that no release needs. gc deletes it when it
	// is too old to belong to a running push.
	Garbage Severity = "garbage"
)

// Kind names the type of object that a finding is about.
type Kind string

// Kinds.
const (
	KindTrust   Kind = "trust"
	KindHalt    Kind = "halt"
	KindRoot    Kind = "index root"
	KindSegment Kind = "segment"
	KindHead    Kind = "head"
	KindRelease Kind = "release"
	KindPage    Kind = "page" // a manifest or chunk-list page
	KindFile    Kind = "file" // of a release: it lacks a chunk
	KindPack    Kind = "pack"
	KindObject  Kind = "object" // of no known kind
)

// Finding is one result of fsck.
type Finding struct {
	Severity Severity            `json:"severity"`
	Kind     Kind                `json:"kind"`
	Key      string              `json:"key,omitempty"` // of the object
	Channel  string              `json:"channel,omitempty"`
	Release  trust.ReleaseNumber `json:"release,omitempty"`
	Path     string              `json:"path,omitempty"` // of a file in that release
	Size     int64               `json:"size,omitempty"` // stored bytes, of garbage
	Cause    string              `json:"cause"`
	Remedy   string              `json:"remedy,omitempty"`
}

func (f Finding) String() string {
	s := string(f.Severity) + ": " + string(f.Kind)
	if f.Key != "" {
		s += " " + f.Key
	}
	if f.Channel != "" {
		s += fmt.Sprintf(" %s/%d", f.Channel, f.Release)
	}
	if f.Path != "" {
		s += fmt.Sprintf(" %q", f.Path)
	}
	s += ": " + f.Cause
	if f.Remedy != "" {
		s += ": " + f.Remedy
	}
	return s
}

// Remedies.
const (
	remedyRebuild = "rebuild the index with nightferry fsck --rebuild-index STORE"
	remedyForget  = "run nightferry fsck --forget-missing STORE, then push again: chunks that the source still holds are stored anew"
	remedyPush    = "push again from the Core"
	remedyGC      = "nightferry gc STORE deletes it when the grace period is over"
	remedyPast    = "the next push goes past it; then nightferry gc STORE deletes it when the grace period is over"
	remedyRestore = "restore the object from a copy of the bucket"
)
