package core

import (
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/enrolment"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Event is something that happened. The Core sends it to the clients that follow events and writes
// it to its log. It holds no secret.
type Event struct {
	At       time.Time      `json:"at"`
	Kind     EventKind      `json:"kind"`
	Domain   string         `json:"domain,omitempty"`
	Site     string         `json:"site,omitempty"`
	Channel  string         `json:"channel,omitempty"`
	Run      string         `json:"run,omitempty"` // 32 hexadecimal digits
	Text     string         `json:"text,omitempty"`
	Progress *runs.Progress `json:"progress,omitempty"` // of RunProgressed
	Ended    *ledger.Run    `json:"ended,omitempty"`    // of RunEnded
}

// EventKind is one word.
type EventKind string

// Kinds of events.
const (
	SiteConnected    EventKind = "connected" // the site sent its hello
	SiteEnrolled     EventKind = "enrolled"
	SiteRevoked      EventKind = "revoked"
	RunStarted       EventKind = "started"
	RunProgressed    EventKind = "progress"
	RunEnded         EventKind = "ended"
	Released         EventKind = "released" // a channel has a new release
	IncidentOpened   EventKind = "incident"
	IncidentResolved EventKind = "resolved"
	Refused          EventKind = "refused" // a site asked for something that is not its own
	Upkeep           EventKind = "upkeep"  // daily work removed or renewed something
	Trouble          EventKind = "trouble" // something failed and will be tried again
)

// IssuedToken is a newly made enrollment token.
type IssuedToken = enrolment.IssuedToken

// PublishOptions are the options of one publish. A channel's permanent options are in its
// configuration.
type PublishOptions struct {
	AllowDeletes   bool
	AllowEmpty     bool
	AllowUnmounted bool
	Rehash         bool
	DryRun         bool
	// Reviewed is the tree of a dry run: a source that holds another one is refused. Zero: any is published.
	Reviewed digest.Digest
	// OnProgress is called at most once a second. Nil: progress is not reported.
	OnProgress func(runs.Progress)
}

// Published is the result of a publish.
type Published struct {
	Run       string              `json:"run"`
	Channel   string              `json:"channel"`
	Number    trust.ReleaseNumber `json:"release"`
	Digest    trust.ReleaseDigest `json:"release_digest,omitzero"`
	Tree      digest.Digest       `json:"tree"`
	Unchanged bool                `json:"unchanged"`
	DryRun    bool                `json:"dry_run,omitempty"`
	Files     int64               `json:"files"`
	Dirs      int64               `json:"dirs"`
	Bytes     int64               `json:"bytes"`
	Added     int64               `json:"added"`
	Changed   int64               `json:"changed"`
	Touched   int64               `json:"touched"`
	Removed   int64               `json:"removed"`
	Skipped   int64               `json:"skipped"`
	Read      int64               `json:"read"`
	Sent      int64               `json:"sent"`
	Sites     int                 `json:"sites"` // that are configured to hold the channel, also of a dry run
}

// SyncRequest asks sites to start a run now.
type SyncRequest struct {
	Scope  fleet.Scope `json:"scope"`
	DryRun bool        `json:"dry_run"` // report what would move, change nothing
	Rehash bool        `json:"rehash"`  // read every byte
	Now    bool        `json:"now"`     // also while no window is open
	Adopt  bool        `json:"adopt"`   // fill a target that held a release but has lost its record of it
}

// Order is one site's part of a sync request: it brings one channel up to date. The resulting run
// carries Start.
type Order struct {
	Domain    string              `json:"domain"`
	Site      string              `json:"site"`
	Channel   string              `json:"channel"`
	Number    trust.ReleaseNumber `json:"release"`
	Start     uint64              `json:"start"`
	Connected bool                `json:"connected"` // false: the run starts when the site reconnects
	// Opens is when the site's next window opens; the run does not start earlier. Zero: it may
	// start now.
	Opens time.Time `json:"opens,omitzero"`
	// Halted is the halt order that keeps the run from starting. Empty: none.
	Halted string `json:"halted,omitempty"`
	// Contested names the two machines that use the site's identity: no result of the run counts. Empty: one machine uses it.
	Contested string `json:"contested,omitempty"`

	before   string // the newest run before the request, in an order of Follow
	replaced bool   // an earlier request that the site had not obeyed
}

// Health reports whether the Core works.
type Health struct {
	Live    bool     `json:"live"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why it is not ready, or only partly healthy
}

// Metrics is a snapshot of the Core's counters and gauges.
type Metrics struct {
	Connections   int            // on the bus, the Core's own included
	Sites         int            // configured
	Enrolled      int            //
	Connected     int            // sent a message recently
	RunsOpen      int            //
	Incidents     map[string]int // open, by kind
	Messages      map[string]int64
	Refusals      map[string]int64 // by code
	Events        int64            // committed
	Outcomes      int64            // file outcomes committed
	Commits       int64            // batches
	CommitTime    time.Duration    // total time spent in commits
	URLs          int64            // presigned
	StatesSent    int64
	Rendered      int64 // log files
	RenderBacklog int
	Releases      map[string]trust.ReleaseNumber // newest, by channel
	StoreOffset   time.Duration                  // the store's clock minus ours
	LedgerFull    bool
	CertExpires   time.Time
}
