package api

import (
	"encoding/json"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// HaltRequest is an order to stop.
type HaltRequest struct {
	Scope  string `json:"scope"` // all, region, domain, site or channel
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
	// Until is when the caller gives up: a Core that hung until then does not carry the order out. Absent: never.
	Until time.Time `json:"until,omitzero"`
}

// HaltChange is the result of giving or lifting halt orders.
type HaltChange struct {
	Orders []halt.ID `json:"orders"`            // that were given or lifted
	Epoch  uint64    `json:"epoch"`             // of the set of orders in force
	Sites  int       `json:"sites"`             // configured, that it is for
	Store  string    `json:"trouble,omitempty"` // why the bucket does not have it yet; sites have it, and it is tried again
}

// Halt is an order to stop and how each site obeys it.
type Halt struct {
	Order     halt.ID    `json:"order"` // zero if it was given on the site itself
	Scope     string     `json:"scope"`
	Value     string     `json:"value"`
	Reason    string     `json:"reason"`
	By        string     `json:"by"`
	At        time.Time  `json:"at"`
	Resumed   time.Time  `json:"resumed,omitzero"`
	ResumedBy string     `json:"resumed_by,omitempty"`
	Confirmed []Stop     `json:"confirmed"`
	Unstored  bool       `json:"unstored,omitempty"` // the bucket does not have it yet: a site that cannot reach the Core does not know it
	Sites     []HaltSite `json:"sites"`
}

// Stop is a site's confirmation of a halt order.
type Stop struct {
	Domain     string        `json:"domain"`
	Site       string        `json:"site"`
	Stopped    time.Time     `json:"stopped"`        // by the site's clock, but not before the order, nor later than within_seconds allows
	BytesAfter int64         `json:"bytes_after"`    // moved between receipt of the order and the stop
	Said       time.Time     `json:"said"`           // by the site's clock
	Confirmed  time.Time     `json:"confirmed"`      // when the Core received it
	Within     clock.Seconds `json:"within_seconds"` // the stop came at most so long after the order, by the Core's own clock; negative: not known
	Process    string        `json:"process"`        // the agent's process that confirmed, in hexadecimal
}

// HaltSite is one site under an order.
type HaltSite struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Enrolled   bool      `json:"enrolled"`
	Connected  bool      `json:"connected"`
	Stopped    time.Time `json:"stopped,omitzero"` // absent: the process that uses the identity has not confirmed
	BytesAfter int64     `json:"bytes_after"`      // moved between receipt of the order and the stop
	// Error is the possible error of Stopped, in both directions. Within is the longest time that can have passed from the
	// order to the stop, by the Core's own clock. Both are absent if they are not known.
	Error  *clock.Seconds `json:"error_seconds,omitempty"`
	Within *clock.Seconds `json:"within_seconds,omitempty"`
	// Confirmed is when the Core received the confirmation. If Stopped is absent, it came from an earlier process: another
	// one has used the site's identity since NewSince and has not confirmed.
	Confirmed time.Time `json:"confirmed,omitzero"`
	NewSince  time.Time `json:"new_process_since,omitzero"`
	// Contested names the two machines that use the site's identity: no stop there is proven.
	Contested string `json:"contested,omitempty"`
	// MovesUntil is present if an agent without a valid identity may move content until then: it was revoked, or
	// enrolled in FormerDomain before the configuration moved or removed the site. It confirms nothing.
	MovesUntil   time.Time `json:"moves_until,omitzero"`
	FormerDomain string    `json:"former_domain,omitempty"`
}

// ResumeRequest lifts one order, or those of a scope.
type ResumeRequest struct {
	Order string `json:"order,omitempty"` // the beginning of its ID
	Scope string `json:"scope,omitempty"`
	Value string `json:"value,omitempty"`
}

// SyncRequest asks sites to start a run now.
type SyncRequest struct {
	Scope  Scope `json:"scope"`
	All    bool  `json:"all"`     // every site: without it, the scope names a site, a region or a domain
	DryRun bool  `json:"dry_run"` // report what would move, change nothing
	Rehash bool  `json:"rehash"`  // read every byte
	Now    bool  `json:"now"`     // also while no window is open
	Adopt  bool  `json:"adopt"`   // fill a target that held a release but has lost its record of it
}

// VerifyRequest asks sites to compare their files with their release now.
type VerifyRequest struct {
	Scope  Scope `json:"scope"`
	All    bool  `json:"all"`    // every site: without it, the scope names a site, a region or a domain
	Full   bool  `json:"full"`   // read every byte
	Repair bool  `json:"repair"` // fetch what differs
}

// Order is one site's part of a sync or verify request. The resulting run carries Start.
type Order struct {
	Domain    string              `json:"domain"`
	Site      string              `json:"site"`
	Channel   string              `json:"channel"`
	Number    trust.ReleaseNumber `json:"release"`
	Start     uint64              `json:"start"`
	Connected bool                `json:"connected"`           // false: the run starts when the site reconnects
	Opens     time.Time           `json:"opens,omitzero"`      // when the site's next window opens; absent: the run may start now
	Halted    string              `json:"halted,omitempty"`    // the halt order that keeps the run from starting
	Contested string              `json:"contested,omitempty"` // names the two machines that use the site's identity; no result of the run counts
}

// LimitRequest changes how fast sites move.
type LimitRequest struct {
	Scope Scope         `json:"scope"`       // without a channel
	All   bool          `json:"all"`         // every site: without it, the scope names a site, a region or a domain
	Rate  string        `json:"rate"`        // a rate, 0, unlimited or a timetable; empty: the configuration's counts again
	For   clock.Seconds `json:"for_seconds"` // 0: until it is lifted
}

// Limited is one site's answer to a LimitRequest.
type Limited struct {
	Domain    string    `json:"domain"`
	Site      string    `json:"site"`
	Rate      string    `json:"rate"` // the timetable in force
	Until     time.Time `json:"until,omitzero"`
	Connected bool      `json:"connected"` // false: it obeys when it reconnects
}

// PublishRequest publishes channels.
type PublishRequest struct {
	Channel        string `json:"channel,omitempty"` // empty: all that are configured
	AllowDeletes   bool   `json:"allow_deletes,omitempty"`
	AllowEmpty     bool   `json:"allow_empty,omitempty"`
	AllowUnmounted bool   `json:"allow_unmounted,omitempty"`
	Rehash         bool   `json:"rehash,omitempty"`
	DryRun         bool   `json:"dry_run,omitempty"`
	// Reviewed is the tree of a dry run's result, for one channel: if the source has changed since, nothing is published.
	Reviewed digest.Digest `json:"reviewed,omitzero"`
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

// Job is long work that a client has asked for. It continues if that client disconnects.
type Job struct {
	ID      string          `json:"id"`
	Kind    string          `json:"kind"` // publish, sync or verify
	Who     string          `json:"who"`  // asked for it
	Scope   Scope           `json:"scope"`
	Request json.RawMessage `json:"request,omitempty"` // body of the request; absent in a list
	State   string          `json:"state"`             // running, done, failed, stopped (by a person) or interrupted (by the end of the Core)
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended,omitzero"`
	// Progress is the newest line of progress of a job that runs.
	Progress *JobLine  `json:"progress,omitempty"`
	Result   []JobLine `json:"result,omitempty"` // absent in a list; its first 256 KiB
	Error    *Error    `json:"error,omitempty"`
}

// JobLine is a line of a job: the progress and the result of each publish; the requests to sites once, then the events of their
// runs, and of a verify the differences.
type JobLine struct {
	Job       *Job           `json:"job,omitempty"` // first line: the job that runs
	Channel   string         `json:"channel,omitempty"`
	Progress  *runs.Progress `json:"progress,omitempty"`
	Done      *Published     `json:"done,omitempty"`
	Orders    []Order        `json:"orders,omitempty"`
	Event     *Event         `json:"event,omitempty"`
	Differs   *Differing     `json:"differs,omitempty"`
	Withdrawn []Order        `json:"withdrawn,omitempty"` // requests that were taken back when the job was stopped
	Left      []Order        `json:"left,omitempty"`      // requests whose runs had started by then: they continue
	Missed    int            `json:"missed,omitempty"`    // lines before this one that were too many to keep
}

// Differing is a path that a site found not to be as its release says.
type Differing struct {
	Site    string       `json:"site"`
	Channel string       `json:"channel"`
	Run     string       `json:"run"`
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"` // differs, repaired, locked or failed
	Why     string       `json:"why"`     // the problem, one word, and its detail
}

// EventLine is one line of GET /v1/events. Without an event and without missed it only shows that the Core is alive.
type EventLine struct {
	ID     string  `json:"id,omitempty"` // for Last-Event-ID
	Event  *Event  `json:"event,omitempty"`
	Missed *Missed `json:"missed,omitempty"`
}

// Missed reports that a client missed events: read the state again.
type Missed struct {
	Count     uint64 `json:"count,omitempty"`     // how many, of all kinds and sites
	Restarted bool   `json:"restarted,omitempty"` // the Core has restarted since; how many is unknown
}

// Event is what happened at a site.
type Event struct {
	At       time.Time      `json:"at"`
	Kind     string         `json:"kind"`
	Domain   string         `json:"domain,omitempty"`
	Site     string         `json:"site,omitempty"`
	Channel  string         `json:"channel,omitempty"`
	Run      string         `json:"run,omitempty"` // 32 hexadecimal digits
	Text     string         `json:"text,omitempty"`
	Progress *runs.Progress `json:"progress,omitempty"`
	Ended    *Run           `json:"ended,omitempty"`
}
