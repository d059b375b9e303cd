package api

import (
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Scope selects sites and channels. Empty fields match all; set fields must all match.
type Scope struct {
	Domain  string `json:"domain,omitempty" query:"domain" doc:"only this domain"`
	Region  string `json:"region,omitempty" query:"region" doc:"only this region"`
	Site    string `json:"site,omitempty" query:"site" doc:"only this site"`
	Channel string `json:"channel,omitempty" query:"channel" doc:"only this channel"`
}

// Health reports whether the Core works.
type Health struct {
	Live    bool     `json:"live"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"` // why it is not ready, or only partly healthy
}

// Status summarizes the fleet in numbers.
type Status struct {
	At        time.Time  `json:"at"` // by the store's clock
	Version   string     `json:"version"`
	Repo      string     `json:"repo"`
	Store     string     `json:"store"` // without credentials
	Revision  uint64     `json:"revision"`
	Sites     int        `json:"sites"`
	Enrolled  int        `json:"enrolled"`
	Connected int        `json:"connected"`
	Current   int        `json:"current"` // sites that have proven that they hold every wanted release
	Running   int        `json:"running"` // runs under way
	Incidents int        `json:"incidents"`
	Halts     int        `json:"halts"`
	StoreRead time.Time  `json:"store_read,omitzero"`   // when this process last read the store; absent: not yet
	Unread    string     `json:"store_error,omitempty"` // why later reads failed; halt orders and releases that others wrote there since are unknown
	Rehearsal *Rehearsal `json:"rehearsal,omitempty"`   // absent: the Core runs on real time
	Channels  []Release  `json:"channels"`              // the newest release of each
	// Measured holds the Core's measurements of those releases; releases without one are left out.
	Measured []Measurement `json:"measured"`
}

// Rehearsal is the simulated time that the calendar follows in a rehearsal.
type Rehearsal struct {
	Time  time.Time `json:"time"`
	Speed int64     `json:"speed"`
}

// Release is one release of a channel.
type Release struct {
	Channel   string              `json:"channel"`
	Number    trust.ReleaseNumber `json:"release"`
	Digest    trust.ReleaseDigest `json:"release_digest"`
	Tree      digest.Digest       `json:"tree"`
	Parent    trust.ReleaseNumber `json:"parent,omitempty"`
	Files     int64               `json:"files"`
	Bytes     int64               `json:"bytes"`
	Published time.Time           `json:"published"`
	Run       runs.ID             `json:"run,omitzero"`
}

// Measurement is the result of the Core reading a release's source.
type Measurement struct {
	Channel     string              `json:"channel"`
	Number      trust.ReleaseNumber `json:"release"`
	Release     trust.ReleaseDigest `json:"release_digest"`
	At          time.Time           `json:"at"` // when it ended
	Took        clock.Seconds       `json:"took_seconds"`
	Run         runs.ID             `json:"run"`          // its log lists every path
	Tree        digest.Digest       `json:"tree"`         // of a site that holds the release
	Files       int64               `json:"files"`        // of a site that holds the release
	Bytes       int64               `json:"bytes"`        // of a site that holds the release
	SourceFiles int64               `json:"source_files"` // files in the source now
	SourceBytes int64               `json:"source_bytes"`
	Same        int64               `json:"same"`       // paths equal to the release
	Moved       int64               `json:"moved_on"`   // paths edited, added or removed since the release
	Damaged     int64               `json:"damaged"`    // files with other bytes, but the same size and time
	Unreadable  int64               `json:"unreadable"` // paths that could not be read
	Changed     int64               `json:"changed"`    // another size, time or kind than published
	New         int64               `json:"new"`        // in the source, but in no release yet
	Gone        int64               `json:"gone"`       // published, but no longer in the source
}

// Site is the Core's view of a site.
type Site struct {
	Site        string        `json:"site"`
	Domain      string        `json:"domain"`
	Region      string        `json:"region"`
	Zone        string        `json:"zone"`               // IANA name
	Latitude    *float64      `json:"latitude,omitempty"` // degrees, as configured; absent: the configuration has none
	Longitude   *float64      `json:"longitude,omitempty"`
	Enrolled    time.Time     `json:"enrolled,omitzero"`     // absent: it never joined, or was revoked
	Revoked     time.Time     `json:"revoked,omitzero"`      // absent: it is enrolled, or never was
	RevokedWhy  string        `json:"revoked_why,omitempty"` // by whom, with the reason
	JWTExpires  time.Time     `json:"jwt_expires,omitzero"`
	Contested   string        `json:"contested,omitempty"` // names the two machines that use its identity; its state is then unknown
	Connected   bool          `json:"connected"`           // a message from it arrived recently
	Seen        time.Time     `json:"seen,omitzero"`
	Version     string        `json:"version,omitempty"`
	ClockOffset clock.Seconds `json:"clock_offset_seconds"` // the site's clock minus the Core's
	Spooled     uint64        `json:"spooled"`              // events not yet committed
	Revision    uint64        `json:"revision"`             // of the desired state that the site has adopted
	Wanted      uint64        `json:"wanted"`               // of the newest desired state for the site
	Channels    []SiteChannel `json:"channels"`
}

// SiteChannel is one channel at one site.
type SiteChannel struct {
	Channel  string              `json:"channel"`
	Target   string              `json:"target"`
	Wants    trust.ReleaseNumber `json:"wants"` // release; 0: none published
	Holds    trust.ReleaseNumber `json:"holds"` // last attested; 0: none
	Since    time.Time           `json:"since,omitzero"`
	Verified time.Time           `json:"verified,omitzero"`
	State    string              `json:"state"`
	Why      string              `json:"why,omitempty"`        // the first reason, in a few words
	Reasons  []Reason            `json:"reasons,omitempty"`    // the reasons why it is not current, most urgent first
	Run      string              `json:"run,omitempty"`        // the run under way, else the last one
	LastEnd  string              `json:"last_end,omitempty"`   // how the last run ended
	LastWhy  string              `json:"last_cause,omitempty"` // why it did not end better
	Progress *runs.Progress      `json:"progress,omitempty"`
	Waiting  *Waiting            `json:"waiting,omitempty"`  // why the site has not started the wanted run
	Measured *Measurement        `json:"measured,omitempty"` // of the release that the site holds; absent: not measured yet
}

// Waiting is why a site has not started the wanted run of a channel.
type Waiting struct {
	Why   string    `json:"why"`            // one word
	Since time.Time `json:"since,omitzero"` // with away: when its last message arrived
	Until time.Time `json:"until,omitzero"` // when the reason ends by itself; absent: unknown
	Text  string    `json:"text,omitempty"` // details, as the site sent them
}

// Reason is one answer to why a channel at a site is not as it should be.
type Reason struct {
	Domain  string    `json:"domain,omitempty"`
	Site    string    `json:"site,omitempty"`
	Channel string    `json:"channel,omitempty"` // absent: the whole site, or the Core
	What    string    `json:"what"`              // a few words
	Since   time.Time `json:"since,omitzero"`
	Cause   string    `json:"cause,omitempty"`
	Remedy  string    `json:"remedy,omitempty"`
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
	Verified time.Time           `json:"verified,omitzero"` // when the site last proved the file; absent also if a later finding refutes that
	Current  bool                `json:"current"`           // it is the file of the newest release, and no finding contradicts it
	State    string              `json:"state"`             // nothing yet, absent, current, older, missing, differs or unproven
	Found    time.Time           `json:"found,omitzero"`    // when a run found it missing, different or in doubt
	Cause    string              `json:"cause,omitempty"`   // the run's finding, or why nothing is proven
	Run      string              `json:"run,omitempty"`     // that run
	Waiting  *Waiting            `json:"waiting,omitempty"` // why the site has not started to bring the newest release
	Measured *Measurement        `json:"measured,omitempty"`
}

// Incident is a problem with its members; many sites may share it.
type Incident struct {
	ID       int64     `json:"id"`
	Key      string    `json:"incident_key"`
	Kind     string    `json:"kind"`
	Scope    string    `json:"scope"`
	Text     string    `json:"text"`
	Opened   time.Time `json:"opened"`
	Last     time.Time `json:"last"`  // last reported
	Count    int64     `json:"count"` // reports
	Resolved time.Time `json:"resolved,omitzero"`
	Closed   string    `json:"closed,omitempty"` // by whom and why, if an operator closed it
	Acked    string    `json:"acked,omitempty"`  // by whom, with a note, if an operator acknowledged it
	Silent   time.Time `json:"silent,omitzero"`  // until then no alert is sent of it
	Members  []Member  `json:"members"`
	Remedy   string    `json:"remedy"`
}

// Member is a site's part in an incident.
type Member struct {
	Domain string    `json:"domain,omitempty"`
	Site   string    `json:"site,omitempty"`
	Text   string    `json:"text"` // as last reported
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Count  int64     `json:"count"`
	Left   time.Time `json:"left,omitzero"` // when the incident ended there
}

// Plan is the forecast for the coming nights.
type Plan struct {
	From     time.Time  `json:"from"`
	Days     int        `json:"days"`
	Currency string     `json:"currency"`
	Items    []PlanItem `json:"items"`
}

// Opening is one window of a channel at a site.
type Opening struct {
	Site    string    `json:"site"`
	Domain  string    `json:"domain"`
	Region  string    `json:"region"`
	Channel string    `json:"channel"`
	Start   time.Time `json:"start"`            // may be before the time that was asked for
	End     time.Time `json:"end"`              // may be after it
	Always  bool      `json:"always,omitempty"` // the configuration gives no window; start and end are those that were asked for
}

// PlanItem is the forecast for one release at one site.
type PlanItem struct {
	Site      string              `json:"site"`
	Domain    string              `json:"domain"`
	Region    string              `json:"region"`
	Channel   string              `json:"channel"`
	Release   trust.ReleaseNumber `json:"release"` // 0: not published yet
	Zone      string              `json:"zone"`
	Ready     time.Time           `json:"ready"`
	Start     time.Time           `json:"start,omitzero"` // absent: not within the days
	End       time.Time           `json:"end,omitzero"`   // absent: not within the days
	Active    clock.Seconds       `json:"active_seconds"` // of transfer, within the days
	Nights    int                 `json:"nights"`         // 0: it never completes
	Tonight   bool                `json:"tonight"`        // the release arrives in the window in which its run starts
	Halted    bool                `json:"halted,omitempty"`
	Blocked   string              `json:"blocked,omitempty"`   // why it does not start until a person acts
	Assumed   bool                `json:"assumed,omitempty"`   // the site's rate was never measured
	Bytes     int64               `json:"bytes"`               // of content that the site lacks, before compression
	Estimated bool                `json:"estimated,omitempty"` // Bytes is the amount that earlier releases took
	Requests  int64               `json:"requests"`
	Cost      float64             `json:"cost"`
}
