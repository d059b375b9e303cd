package core

import (
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/runs"
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
	SiteConnected  EventKind = "connected" // the site sent its hello
	SiteEnrolled   EventKind = "enrolled"
	SiteRevoked    EventKind = "revoked"
	RunStarted     EventKind = "started"
	RunProgressed  EventKind = "progress"
	RunEnded       EventKind = "ended"
	Released       EventKind = "released" // a channel has a new release
	IncidentOpened EventKind = "incident"
	IncidentOver   EventKind = "resolved"
	Refused        EventKind = "refused" // a site asked for something that is not its own
	Upkeep         EventKind = "upkeep"  // daily work removed or renewed something
	Trouble        EventKind = "trouble" // something failed and will be tried again
)

// IssuedToken is a newly made enrollment token. Text is the secret.
type IssuedToken struct {
	ID      string    `json:"id"`
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Expires time.Time `json:"expires"`
	Text    string    `json:"token"`
	// Joined is when the site's current identity was enrolled; using the token ends that identity.
	// Zero: the site has none.
	Joined    time.Time `json:"joined,omitzero"`
	Connected bool      `json:"connected,omitempty"` // the agent with that identity sent a message recently
	Seen      time.Time `json:"seen,omitzero"`       // when its last message arrived
	Version   string    `json:"version,omitempty"`   // of its agent
}

// PublishOptions are the options of one publish. A channel's permanent options are in its
// configuration.
type PublishOptions struct {
	AllowDeletes   bool
	AllowEmpty     bool
	AllowUnmounted bool
	Rehash         bool
	DryRun         bool
	// OnProgress is called at most once a second. Nil: progress is not reported.
	OnProgress func(runs.Progress)
}

// Published is the result of a publish.
type Published struct {
	Run       string        `json:"run"`
	Channel   string        `json:"channel"`
	Number    uint64        `json:"number"`
	Digest    digest.Digest `json:"digest,omitzero"`
	Tree      digest.Digest `json:"tree"`
	Unchanged bool          `json:"unchanged"`
	DryRun    bool          `json:"dry_run,omitempty"`
	Files     int64         `json:"files"`
	Dirs      int64         `json:"dirs"`
	Bytes     int64         `json:"bytes"`
	Added     int64         `json:"added"`
	Changed   int64         `json:"changed"`
	Touched   int64         `json:"touched"`
	Removed   int64         `json:"removed"`
	Skipped   int64         `json:"skipped"`
	Read      int64         `json:"read"`
	Sent      int64         `json:"sent"`
	Sites     int           `json:"sites"` // that should hold the release now
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
	Domain    string `json:"domain"`
	Site      string `json:"site"`
	Channel   string `json:"channel"`
	Number    uint64 `json:"number"`
	Start     uint64 `json:"start"`
	Connected bool   `json:"connected"` // false: the run starts when the site reconnects
	// Opens is when the site's next window opens; the run does not start earlier. Zero: it may
	// start now.
	Opens time.Time `json:"opens,omitzero"`
	// Halted is the halt order that keeps the run from starting. Empty: none.
	Halted string `json:"halted,omitempty"`
}

// SiteStatus is the Core's view of a site.
type SiteStatus struct {
	Site        string          `json:"site"`
	Domain      string          `json:"domain"`
	Region      string          `json:"region"`
	Enrolled    time.Time       `json:"enrolled,omitzero"` // zero: it never joined, or was revoked
	JWTExpires  time.Time       `json:"jwt_expires,omitzero"`
	Contested   string          `json:"contested,omitempty"` // names the two machines that use its identity; its state is then unknown
	Connected   bool            `json:"connected"`           // a message from it arrived recently
	Seen        time.Time       `json:"seen,omitzero"`
	Version     string          `json:"version,omitempty"`
	ClockOffset ledger.Seconds  `json:"clock_offset_seconds"` // the site's clock minus the Core's
	Spooled     uint64          `json:"spooled"`              // events not yet committed
	Revision    uint64          `json:"revision"`             // of the desired state that the site has adopted
	Wanted      uint64          `json:"wanted"`               // of the newest desired state for the site
	Channels    []ChannelStatus `json:"channels"`
}

// ChannelStatus is one channel at one site.
type ChannelStatus struct {
	Channel  string         `json:"channel"`
	Target   string         `json:"target"`
	Wants    uint64         `json:"wants"` // release; 0: none published
	Holds    uint64         `json:"holds"` // last attested; 0: none
	Since    time.Time      `json:"since,omitzero"`
	Verified time.Time      `json:"verified,omitzero"`
	State    string         `json:"state"`                // one of States
	Why      string         `json:"why,omitempty"`        // the first reason, in a few words
	Reasons  []Reason       `json:"reasons,omitempty"`    // the reasons why it is not current, most urgent first
	Run      string         `json:"run,omitempty"`        // the run under way, else the last one
	LastEnd  string         `json:"last_end,omitempty"`   // how the last run ended
	LastWhy  string         `json:"last_cause,omitempty"` // why it did not end better
	Progress *runs.Progress `json:"progress,omitempty"`
	// Waiting is why the site has not started the wanted run. Nil: it holds the release, is
	// running, or has not sent a reason.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Measured is the Core's measurement of its source for the release that the site holds. Nil:
	// not measured yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`

	failed bool      // the last run was for the wanted release and did not end well
	lastAt time.Time // when the last run ended
}

// Waiting is why a site has not started the wanted run of a channel.
type Waiting struct {
	// Why is a word of wire.Why (unreadable, refused, clock, halted, silent,
	// window, rate, retry, lifted, turn), or away: the site is not connected, or
	// unconfirmed: it has not confirmed the newest desired state yet.
	Why   string    `json:"why"`
	Until time.Time `json:"until,omitzero"` // when the reason ends by itself; zero: unknown
	Text  string    `json:"text,omitempty"` // details, as the site sent them
}

// Status summarizes the fleet in numbers.
type Status struct {
	At        time.Time        `json:"at"` // by the store's clock
	Version   string           `json:"version"`
	Repo      string           `json:"repo"`
	Store     string           `json:"store"` // without credentials
	Revision  uint64           `json:"revision"`
	Sites     int              `json:"sites"`
	Enrolled  int              `json:"enrolled"`
	Connected int              `json:"connected"`
	Current   int              `json:"current"` // sites that have proven that they hold every wanted release
	Running   int              `json:"running"` // runs under way
	Incidents int              `json:"incidents"`
	Halts     int              `json:"halts"`
	StoreRead time.Time        `json:"store_read,omitzero"`   // when this process last read the store; zero: not yet
	Unread    string           `json:"store_error,omitempty"` // why later reads failed; halt orders and releases that others wrote there since are unknown
	Rehearsal *Rehearsal       `json:"rehearsal,omitempty"`   // nil: the Core runs on real time
	Channels  []ledger.Release `json:"channels"`              // the newest release of each
	// Measured holds the Core's measurements of those releases; releases without one are left out.
	Measured []ledger.Measurement `json:"measured"`
}

// Place is the location of a channel's file at one site.
type Place struct {
	Domain   string        `json:"domain"`
	Site     string        `json:"site"`
	Release  uint64        `json:"release"` // the release that the site holds; 0: none
	Present  bool          `json:"present"` // the release has the file
	Size     int64         `json:"size"`
	Digest   digest.Digest `json:"sha256,omitzero"`
	Since    time.Time     `json:"since,omitzero"`    // since when the site holds the release
	Verified time.Time     `json:"verified,omitzero"` // when the site last proved the file; zero also if a later finding refutes that
	Current  bool          `json:"current"`           // it is the file of the newest release, and no finding contradicts it
	// State is one of: nothing yet (the site holds no release), absent (its release lacks the
	// file), current, older, missing, differs, unproven. The last three override the state that
	// follows from the site's release.
	State string    `json:"state"`
	Found time.Time `json:"found,omitzero"`  // when a run found it missing, different or in doubt
	Cause string    `json:"cause,omitempty"` // the run's finding, or why nothing is proven
	Run   string    `json:"run,omitempty"`   // that run
	// Measured is the Core's measurement of its source for the release that the site holds. Nil:
	// not measured yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
}

// RunDetail holds the details of one run, for RunShow.
type RunDetail struct {
	ledger.Run
	Header record.Header `json:"header"`
	Log    string        `json:"log,omitempty"` // path of the log file relative to the log folder, once the file is complete
	// Measured is the Core's measurement of its source for the run's release. Nil: not measured
	// yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
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
	Releases      map[string]uint64 // newest, by channel
	StoreOffset   time.Duration     // the store's clock minus ours
	LedgerFull    bool
	CertExpires   time.Time
}
