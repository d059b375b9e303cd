package core

import (
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/runs"
)

// Event is something that happened, for who follows and for the process's log.
// It holds no secret.
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
	SiteConnected  EventKind = "connected" // a site said hello
	SiteEnrolled   EventKind = "enrolled"
	SiteRevoked    EventKind = "revoked"
	RunStarted     EventKind = "started"
	RunProgressed  EventKind = "progress"
	RunEnded       EventKind = "ended"
	Released       EventKind = "released" // a channel has a new release
	IncidentOpened EventKind = "incident"
	IncidentOver   EventKind = "resolved"
	Refused        EventKind = "refused" // somebody asked for what is not theirs
	Upkeep         EventKind = "upkeep"  // what daily work removed or renewed
	Trouble        EventKind = "trouble" // something failed and will be tried again
)

// IssuedToken is a token that was just made. Text is the secret.
type IssuedToken struct {
	ID      string    `json:"id"`
	Domain  string    `json:"domain"`
	Site    string    `json:"site"`
	Expires time.Time `json:"expires"`
	Text    string    `json:"token"`
	// Joined is since when the site has an identity, which ends when the token is used; zero: it has none.
	Joined    time.Time `json:"joined,omitzero"`
	Connected bool      `json:"connected,omitempty"` // that one was heard lately
	Seen      time.Time `json:"seen,omitzero"`       // when it was heard last
	Version   string    `json:"version,omitempty"`   // of its agent
}

// PublishOptions are those of one publish; a channel's own stand in its
// configuration.
type PublishOptions struct {
	AllowDeletes   bool
	AllowEmpty     bool
	AllowUnmounted bool
	Rehash         bool
	DryRun         bool
	// OnProgress is called at most once a second. Nil: nobody wants to know.
	OnProgress func(runs.Progress)
}

// Published is what became of a publish.
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
	Sites     int           `json:"sites"` // that should hold it now
}

// SyncRequest orders sites to start now.
type SyncRequest struct {
	Scope  fleet.Scope `json:"scope"`
	DryRun bool        `json:"dry_run"` // report what would move, change nothing
	Rehash bool        `json:"rehash"`  // read every byte
	Now    bool        `json:"now"`     // also while no window is open
	Adopt  bool        `json:"adopt"`   // fill a target that held a release and has no record of it any more
}

// Order is one site's order to bring one channel up to date. The run that
// obeys it carries Start.
type Order struct {
	Domain    string `json:"domain"`
	Site      string `json:"site"`
	Channel   string `json:"channel"`
	Number    uint64 `json:"number"`
	Start     uint64 `json:"start"`
	Connected bool   `json:"connected"` // false: it starts when the site comes back
	// Opens is when its next window opens, before which it does not start; zero:
	// it may start now.
	Opens time.Time `json:"opens,omitzero"`
}

// SiteStatus is what the Core knows of a site.
type SiteStatus struct {
	Site        string          `json:"site"`
	Domain      string          `json:"domain"`
	Region      string          `json:"region"`
	Enrolled    time.Time       `json:"enrolled,omitzero"` // zero: it never joined, or was revoked
	JWTExpires  time.Time       `json:"jwt_expires,omitzero"`
	Contested   string          `json:"contested,omitempty"` // two machines use its identity: which; nothing is claimed of it
	Connected   bool            `json:"connected"`           // it was heard lately
	Seen        time.Time       `json:"seen,omitzero"`
	Version     string          `json:"version,omitempty"`
	ClockOffset ledger.Seconds  `json:"clock_offset_seconds"` // the site's clock minus the Core's
	Spooled     uint64          `json:"spooled"`              // events not yet committed
	Revision    uint64          `json:"revision"`             // of the state that it has taken over
	Wanted      uint64          `json:"wanted"`               // of the state that it should
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
	Reasons  []Reason       `json:"reasons,omitempty"`    // what keeps it from being current, the most urgent first
	Run      string         `json:"run,omitempty"`        // the one under way, else the last
	LastEnd  string         `json:"last_end,omitempty"`   // how the last run ended
	LastWhy  string         `json:"last_cause,omitempty"` // why not better
	Progress *runs.Progress `json:"progress,omitempty"`
	// Waiting is why the site has not started what it should; nil: it holds that, is running, or has not sent a reason.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Measured is what the Core found in its source of the release that the site holds; nil: nothing yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`

	failed bool      // the last run was for the wanted release, and did not end well
	lastAt time.Time // when the last run ended
}

// Waiting is why a channel at a site has not started what it should.
type Waiting struct {
	// Why is a word of wire.Why (unreadable, refused, clock, halted, silent,
	// window, rate, retry, lifted, turn), or away: the site is not connected, or
	// unconfirmed: it has not confirmed the newest desired state yet.
	Why   string    `json:"why"`
	Until time.Time `json:"until,omitzero"` // when it ends by itself; zero: not known
	Text  string    `json:"text,omitempty"` // details, as the site sent them
}

// Status is the fleet in numbers.
type Status struct {
	At        time.Time        `json:"at"` // by the store's clock
	Version   string           `json:"version"`
	Repo      string           `json:"repo"`
	Store     string           `json:"store"` // without credentials
	Revision  uint64           `json:"revision"`
	Sites     int              `json:"sites"`
	Enrolled  int              `json:"enrolled"`
	Connected int              `json:"connected"`
	Current   int              `json:"current"` // sites that hold all that they should, proven
	Running   int              `json:"running"` // runs under way
	Incidents int              `json:"incidents"`
	Halts     int              `json:"halts"`
	StoreRead time.Time        `json:"store_read,omitzero"`   // when this process read the store last; zero: not yet
	Unread    string           `json:"store_error,omitempty"` // why that failed since: what others ordered or published there is not known
	Rehearsal *Rehearsal       `json:"rehearsal,omitempty"`   // nil: what is done is done in the real time
	Channels  []ledger.Release `json:"channels"`              // the newest release of each
	// Measured is what the Core found in its sources of them, as far as they are measured.
	Measured []ledger.Measurement `json:"measured"`
}

// Place is where a file of a channel is, at one site.
type Place struct {
	Domain   string        `json:"domain"`
	Site     string        `json:"site"`
	Release  uint64        `json:"release"` // that the site holds; 0: none
	Present  bool          `json:"present"` // the release has the file
	Size     int64         `json:"size"`
	Digest   digest.Digest `json:"sha256,omitzero"`
	Since    time.Time     `json:"since,omitzero"`    // the release is there since
	Verified time.Time     `json:"verified,omitzero"` // the site last proved it; zero also if a finding refutes that
	Current  bool          `json:"current"`           // it is the file of the newest release, and nothing speaks against it
	// State is one of: nothing yet (the site holds no release), absent (its
	// release lacks the file), current, older, missing, differs, unproven. The
	// last three overrule what the site's release says.
	State string    `json:"state"`
	Found time.Time `json:"found,omitzero"`  // when a run found it missing, different or in doubt
	Cause string    `json:"cause,omitempty"` // what the run found, or why nothing is proven
	Run   string    `json:"run,omitempty"`   // that run
	// Measured is what the Core found in its source of the release that the site holds; nil: nothing yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
}

// RunDetail opens what RunShow tells.
type RunDetail struct {
	ledger.Run
	Header record.Header `json:"header"`
	Log    string        `json:"log,omitempty"` // path of the log file below the logs' folder, once it is complete
	// Measured is what the Core found in its source of the run's release; nil: nothing yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
}

// Health says whether the Core works.
type Health struct {
	Live    bool     `json:"live"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why it is not ready, or only partly well
}

// Metrics is a snapshot of the Core's counters and gauges.
type Metrics struct {
	Connections   int            // of the bus, the Core's own too
	Sites         int            // configured
	Enrolled      int            //
	Connected     int            // heard lately
	RunsOpen      int            //
	Incidents     map[string]int // open, by kind
	Messages      map[string]int64
	Refusals      map[string]int64 // by code
	Events        int64            // committed
	Outcomes      int64            // file outcomes committed
	Commits       int64            // batches
	CommitTime    time.Duration    // spent in them, all together
	URLs          int64            // lent
	StatesSent    int64
	Rendered      int64 // log files
	RenderBacklog int
	Releases      map[string]uint64 // newest, by channel
	StoreOffset   time.Duration     // the store's clock minus ours
	LedgerFull    bool
	CertExpires   time.Time
}
