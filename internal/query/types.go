package query

import (
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/ledger"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// SiteStatus is the Core's view of a site.
type SiteStatus struct {
	Site        string          `json:"site"`
	Domain      string          `json:"domain"`
	Region      string          `json:"region"`
	Zone        string          `json:"zone"`
	Latitude    *float64        `json:"latitude,omitempty"` // degrees, as configured; nil: the configuration has none
	Longitude   *float64        `json:"longitude,omitempty"`
	Enrolled    time.Time       `json:"enrolled,omitzero"`     // zero: it never joined, or was revoked
	Revoked     time.Time       `json:"revoked,omitzero"`      // zero: it is enrolled, or never was
	RevokedWhy  string          `json:"revoked_why,omitempty"` // by whom, with the reason
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

	refused   string // why the bus refuses its agent; empty: it does not
	refusedAt time.Time
}

// ChannelStatus is one channel at one site.
type ChannelStatus struct {
	Channel  string              `json:"channel"`
	Target   string              `json:"target"`
	Wants    trust.ReleaseNumber `json:"wants"` // release; 0: none published
	Holds    trust.ReleaseNumber `json:"holds"` // last attested; 0: none
	Since    time.Time           `json:"since,omitzero"`
	Verified time.Time           `json:"verified,omitzero"`
	State    string              `json:"state"`                // one of States
	Why      string              `json:"why,omitempty"`        // the first reason, in a few words
	Reasons  []Reason            `json:"reasons,omitempty"`    // the reasons why it is not current, most urgent first
	Run      string              `json:"run,omitempty"`        // the run under way, else the last one
	LastEnd  string              `json:"last_end,omitempty"`   // how the last run ended
	LastWhy  string              `json:"last_cause,omitempty"` // why it did not end better
	Progress *runs.Progress      `json:"progress,omitempty"`
	// Waiting is why the site has not started the wanted run, or why that run waits. Nil: it holds the release, is
	// running, or may start now.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Measured is the Core's measurement of its source for the release that the site holds. Nil:
	// not measured yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`

	lost    *ledger.Finding // the run that found no target that it could use; nil: it is in place
	failed  bool            // the last run was for the wanted release and did not end well
	lastAt  time.Time       // when the last run ended
	stalled time.Time       // since when nothing has moved in the run under way; zero: it moves, or waits
}

// Waiting is why a site has not started the wanted run of a channel, or why that run waits.
type Waiting struct {
	// Why is a word of wire.Why (unreadable, refused, clock, halted, silent,
	// window, rate, retry, lifted, turn, space, url), or away: the site is not connected, or
	// unconfirmed: it has not confirmed the newest desired state yet.
	Why   string    `json:"why"`
	Since time.Time `json:"since,omitzero"` // with away: when its last message arrived; zero: never, or another reason
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
	Domain   string              `json:"domain"`
	Site     string              `json:"site"`
	Release  trust.ReleaseNumber `json:"release"` // the release that the site holds; 0: none
	Present  bool                `json:"present"` // the release has the file
	Size     int64               `json:"size"`
	Digest   digest.Digest       `json:"sha256,omitzero"`
	Since    time.Time           `json:"since,omitzero"`    // since when the site holds the release
	Verified time.Time           `json:"verified,omitzero"` // when the site last proved the file; zero also if a later finding refutes that
	Current  bool                `json:"current"`           // it is the file of the newest release, and no finding contradicts it
	// State is one of: nothing yet (the site holds no release), absent (its release lacks the
	// file), current, older, missing, differs, unproven, contested (two machines use the site's
	// identity). The last four override the state that follows from the site's release.
	State string    `json:"state"`
	Found time.Time `json:"found,omitzero"`  // when a run found it missing, different or in doubt
	Cause string    `json:"cause,omitempty"` // the run's finding, or why nothing is proven
	Run   string    `json:"run,omitempty"`   // that run
	// Waiting is why the site has not started to bring the newest release. Nil: it holds it, is running, or may start now.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Measured is the Core's measurement of its source for the release that the site holds. Nil:
	// not measured yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
}

// RunDetail holds the details of one run, for RunShow.
type RunDetail struct {
	ledger.Run
	Header record.Header `json:"header"`
	Log    string        `json:"log,omitempty"`           // path of the log file relative to the log folder, once the file is complete
	Files  int64         `json:"release_files,omitempty"` // of the run's release; 0: the ledger does not have it
	Bytes  int64         `json:"release_bytes,omitempty"`
	// Progress is that of a run under way. Nil: it has ended, or has sent none yet.
	Progress *runs.Progress `json:"progress,omitempty"`
	// Measured is the Core's measurement of its source for the run's release. Nil: not measured
	// yet.
	Measured *ledger.Measurement `json:"measured,omitempty"`
}
