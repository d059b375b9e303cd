package ledger

import (
	"maps"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// Token permits the enrollment of one site, once. The ledger stores only a hash of its secret.
type Token struct {
	ID       string    `json:"id"`
	Domain   string    `json:"domain"`
	Site     string    `json:"site"`
	Issued   time.Time `json:"issued"`
	IssuedBy string    `json:"issued_by"`
	Expires  time.Time `json:"expires"`
	Used     time.Time `json:"used,omitzero"`
	UsedBy   string    `json:"used_by,omitempty"` // public key of the identity that used it
	User     string    `json:"user"`              // public key of the token's own user on the bus
	Ended    time.Time `json:"ended,omitzero"`    // that user is revoked: the site came, or the token was revoked
}

// Identity is a present or past key of a site.
type Identity struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Public     string    `json:"public"` // NATS user public key
	Enrolled   time.Time `json:"enrolled"`
	JWTExpires time.Time `json:"jwt_expires"`
	Version    string    `json:"version"` // of the agent that enrolled
	// Ended is the time of a newer enrollment or a revocation; zero: it is the site's current identity.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"` // "superseded", or the reason of the revocation
	// Contested is the time since which two machines have used the key; zero: only one does. Contest describes them.
	Contested time.Time `json:"contested,omitzero"`
	Contest   string    `json:"contest,omitempty"`
	// Cut is the time since which the configuration has no site of that name in that domain, so that the Core refuses the
	// key; zero: it has one.
	Cut     time.Time `json:"cut,omitzero"`
	Process Process   `json:"process,omitzero"`
}

// Process is the agent's process that used an identity last, and its place in the record of starts in the agent's state.
type Process struct {
	ID      string    `json:"id"` // in hexadecimal, as are Lineage and Started; empty: none
	Since   time.Time `json:"since,omitzero"`
	Lineage string    `json:"lineage,omitempty"`
	Starts  uint64    `json:"starts,omitempty"` // the number of Started in Lineage
	Started string    `json:"started,omitempty"`
}

// Sighting is the last contact with an agent.
type Sighting struct {
	Domain      string        `json:"domain"`
	Site        string        `json:"site"`
	Seen        time.Time     `json:"seen"`
	Version     string        `json:"version"`      // of the agent
	ClockOffset time.Duration `json:"clock_offset"` // the site's clock minus the Core's
	Lag         uint64        `json:"lag"`          // events spooled but not committed
	Revision    uint64        `json:"revision"`     // of the state that the agent has adopted
}

// Release is one published release of a channel.
type Release struct {
	Channel   string              `json:"channel"`
	Number    trust.ReleaseNumber `json:"release"`
	Digest    trust.ReleaseDigest `json:"release_digest"`
	Tree      digest.Digest       `json:"tree"`
	Parent    trust.ReleaseNumber `json:"parent,omitempty"`
	Files     int64               `json:"files"`
	Bytes     int64               `json:"bytes"`
	Published time.Time           `json:"published"`
	Run       RunID               `json:"run,omitzero"`
}

// Desired is the desired state of one channel at one site.
type Desired struct {
	Domain   string              `json:"domain"`
	Site     string              `json:"site"`
	Channel  string              `json:"channel"`
	Number   trust.ReleaseNumber `json:"release"`
	Release  trust.ReleaseDigest `json:"release_digest"`
	Tree     digest.Digest       `json:"tree"`
	Nonce    [16]byte            `json:"-"`            // returned in the attestation
	Start    uint64              `json:"start"`        // revision of the newest sync request; 0: none
	DryRun   bool                `json:"dry_run"`      // report what would change, but change nothing
	Mode     uint32              `json:"-"`            // of the sync request, encoded by the caller
	Body     []byte              `json:"-"`            // further content for the site, stored so that a change is noticed
	By       string              `json:"by"`           // who requested it
	Set      time.Time           `json:"set,omitzero"` // set by the ledger
	Revision uint64              `json:"revision"`     // set by the ledger: last change of this row
}

// SiteKey identifies a site.
type SiteKey struct{ Domain, Site string }

// DesiredKey identifies a channel at a site.
type DesiredKey struct{ Domain, Site, Channel string }

// Limit is an operator's timetable that replaces the configured rates of a site. It is kept when the site's other rows
// are removed.
type Limit struct {
	Timetable string
	Until     int64 // Unix seconds of the calendar; 0: until it is lifted
}

// DesiredState is the desired state of one or more sites.
type DesiredState struct {
	Rows      []Desired
	Revisions map[SiteKey]uint64 // of each site's last change
	Limits    map[SiteKey]Limit
}

// Add adds the state of other sites.
func (s *DesiredState) Add(other *DesiredState) {
	s.Rows = append(s.Rows, other.Rows...)
	maps.Copy(s.Revisions, other.Revisions)
	maps.Copy(s.Limits, other.Limits)
}

// DesiredChange is a change of desired state.
type DesiredChange struct {
	Set    []Desired // the ledger sets the fields Set and Revision
	Drop   []DesiredKey
	Limits map[SiteKey]Limit // an empty timetable lifts the limit
}

// Empty reports whether c changes nothing.
func (c *DesiredChange) Empty() bool {
	return len(c.Set) == 0 && len(c.Drop) == 0 && len(c.Limits) == 0
}

// Batch is a range of a site's spool: event i has sequence First+i.
type Batch struct {
	Domain, Site string
	Generation   [16]byte // of the spool; a new one starts its sequence at 1
	First        uint64
	Events       []Event
}

// Event is an event of a run. The ledger stores Kind and Body unchanged and returns them from [Ledger.RunEvents]; it
// interprets only the other fields.
type Event struct {
	Run     RunID // zero: of no run; then Body is not stored
	Channel string
	Kind    uint8
	At      time.Time
	Body    []byte

	Start      *Start
	Exceptions []Exception
	Finish     *Finish
	Incidents  []IncidentReport // opened in the same transaction
	Ended      []string         // keys of incidents that end for the site in the same transaction
}

// Start opens a run or completes its record.
type Start struct {
	Number  trust.ReleaseNumber
	Release trust.ReleaseDigest
	Tree    digest.Digest
	Parent  trust.ReleaseNumber // the release that the site held
	Trigger string              // reason for the run: "desired", "sync", "publish"…
	DryRun  bool
}

// Finish ends a run.
type Finish struct {
	State       runs.State // never empty
	Cause       string     // reason for the state; empty if there is none
	Totals      runs.Totals
	Attestation *Attestation
	Filled      *Fill // only Target, Volume and Machine are used; nil: the run found no content of a release
}

// Exception is a file that failed, was locked or was repaired. A site and channel have one exception per path, however
// many runs report it.
type Exception struct {
	Domain  string       `json:"domain"`  // set by the ledger
	Site    string       `json:"site"`    // set by the ledger
	Channel string       `json:"channel"` // set by the ledger
	Path    string       `json:"path"`
	Outcome runs.Outcome `json:"outcome"`
	Cause   string       `json:"cause,omitempty"`
	Size    int64        `json:"size"`
	// Since First, in run As, Count reports had this outcome and cause. The newest is from Run, at Last. The ledger
	// sets all of them.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int64     `json:"count"`
	As    RunID     `json:"as"`
	Run   RunID     `json:"run"`
}

// MaxExceptions bounds the exceptions of one site, so that no site can fill the disk that all share. The run logs list
// every file.
const MaxExceptions = 100_000

// Attestation is a site's signed statement with its searchable columns.
type Attestation struct {
	Run        RunID               `json:"run"`     // set by the ledger
	Domain     string              `json:"domain"`  // set by the ledger
	Site       string              `json:"site"`    // set by the ledger
	Channel    string              `json:"channel"` // set by the ledger
	At         time.Time           `json:"at"`
	Nonce      [16]byte            `json:"-"`
	Number     trust.ReleaseNumber `json:"release"`
	Release    trust.ReleaseDigest `json:"release_digest"`
	Tree       digest.Digest       `json:"tree"`
	Files      int64               `json:"files"`
	Bytes      int64               `json:"bytes"`
	Read       int64               `json:"read"`    // files read back and compared
	Statted    int64               `json:"statted"` // files checked by size and time only
	OldestRead time.Time           `json:"oldest_read,omitzero"`
	// Verified: the caller compared it with its own measurement, and both match.
	Verified bool          `json:"verified"`
	Digest   digest.Digest `json:"digest"` // set by the ledger: digest of Signed
	Signed   []byte        `json:"-"`      // as the site signed it
}

// Run is one run's summary.
type Run struct {
	ID          RunID               `json:"id"`
	Domain      string              `json:"domain,omitempty"` // empty with Site: a run of the Core
	Site        string              `json:"site,omitempty"`
	Channel     string              `json:"channel"`
	Number      trust.ReleaseNumber `json:"release"`
	Release     trust.ReleaseDigest `json:"release_digest"`
	Tree        digest.Digest       `json:"tree"`
	Parent      trust.ReleaseNumber `json:"parent,omitempty"`
	Trigger     string              `json:"trigger,omitempty"`
	DryRun      bool                `json:"dry_run,omitempty"`
	Started     time.Time           `json:"started"`
	Finished    time.Time           `json:"finished,omitzero"`
	State       runs.State          `json:"state,omitempty"` // empty while it runs
	Cause       string              `json:"cause,omitempty"`
	Totals      runs.Totals         `json:"totals"`
	Attestation digest.Digest       `json:"attestation,omitzero"`
	Rendered    time.Time           `json:"rendered,omitzero"` // time at which its log file was complete
	Late        int64               `json:"late,omitempty"`    // events that came after that; they are not in the log
}

// RunFilter selects runs; zero fields match all.
type RunFilter struct {
	Domain, Site, Channel string
	Core                  bool  // only the Core's own runs
	After                 RunID // only runs that come after this one in the list; a run that is gone ends the list
	State                 runs.State
	Open                  bool      // only unfinished runs
	Since, Until          time.Time // by start; Until is excluded
	Limit                 int       // maximum number, newest first; 0: 1 000
}

// Filter selects exceptions, attestations or holdings; zero fields match all.
type Filter struct {
	Run                   RunID
	Domain, Site, Channel string
	Since, Until          time.Time // Until is excluded
	Limit                 int       // maximum number, newest first; 0: 1 000
}

// Holding is a site's latest attested holding of a channel.
type Holding struct {
	Domain   string              `json:"domain"`
	Site     string              `json:"site"`
	Channel  string              `json:"channel"`
	Number   trust.ReleaseNumber `json:"release"`
	Release  trust.ReleaseDigest `json:"release_digest"`
	Tree     digest.Digest       `json:"tree"`
	Since    time.Time           `json:"since"`             // first attested
	Attested time.Time           `json:"attested"`          // last attested
	Verified time.Time           `json:"verified,omitzero"` // last attested and matching
	Run      RunID               `json:"run"`               // of the last attestation
	Files    int64               `json:"files"`             // as last attested; -1: unknown, stored by an older program
	Bytes    int64               `json:"bytes"`
	Lacks    time.Time           `json:"lacks,omitzero"` // since when the site reports that it lacks it; zero: it does not
}

// Fill is a target in which a site has found content of a release, newest report.
type Fill struct {
	Site, Channel, Target string
	Volume                string // mount point; empty: not known
	Machine               []byte // as in wire.Place; empty: not known
	At                    time.Time
	// Number and Release are the site's last attested release of the channel; 0: none.
	Number  trust.ReleaseNumber
	Release trust.ReleaseDigest
}

// MaxFills bounds the targets that are kept of a channel at a site.
const MaxFills = 8

// Committed is the result of committing a batch.
type Committed struct {
	// Last is the highest sequence of the generation in the ledger. The site may delete all events up to it.
	Last uint64
	// Fresh counts the events that were new.
	Fresh int
	// NewGeneration: the site has a new spool.
	NewGeneration bool
	// Returned: the site continues a spool that a newer one has replaced since.
	Returned bool
	// Opened and Resolved are the keys of the incidents that the batch opened, or resolved for all members.
	Opened, Resolved []string
	// Finished lists the runs that the batch ended.
	Finished []RunID
}

// IncidentReport is a report of an incident: it opens the incident or adds a member to it.
type IncidentReport struct {
	Key          string // equal for reports of the same incident
	Kind         string
	Text         string
	Domain, Site string // the member; empty: the Core itself
}

// Incident is an incident with its members; many sites may share it.
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

// Halt is a halt order with the sites that confirmed it.
type Halt struct {
	Order     halt.ID   `json:"order"`
	Scope     string    `json:"scope"`
	Value     string    `json:"value"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	Resumed   time.Time `json:"resumed,omitzero"`
	ResumedBy string    `json:"resumed_by,omitempty"`
	Confirmed []Stop    `json:"confirmed"`
}

// Stop is a site's confirmation of a halt order.
type Stop struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Stopped    time.Time `json:"stopped"`        // by the site's clock, but not before the order, nor later than Within allows
	BytesAfter int64     `json:"bytes_after"`    // moved between receipt of the order and the stop
	Said       time.Time `json:"said"`           // by the site's clock
	Confirmed  time.Time `json:"confirmed"`      // when the Core received it
	Within     Seconds   `json:"within_seconds"` // the stop came at most so long after the order, by the Core's own clock; negative: not known
	Process    string    `json:"process"`        // the agent's process that confirmed, in hexadecimal
}

// Deed is one audit entry: actor, action and object. It is immutable.
type Deed struct {
	ID     int64     `json:"id"` // set by the ledger
	At     time.Time `json:"at"` // set by the ledger
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	Detail string    `json:"detail,omitempty"`
}

// DeedFilter selects audit entries; zero fields match all.
type DeedFilter struct {
	Who, What, Object string
	NoReads           bool      // omit reads of the vault, which are frequent
	After             int64     // only entries that come after this one in the list; 0: from the first
	Since, Until      time.Time // Until is excluded
	Limit             int       // maximum number, newest first; 0: 1 000
}

// Retention defines how long to keep rows. Zero means forever.
type Retention struct {
	Logs     time.Duration // events of ended runs, and exceptions since their last report
	Runs     time.Duration // runs, resolved incidents, lifted halts, used tokens, ended identities, data of sites that are gone, and the audit (at least 90 days)
	Releases time.Duration // releases that no site holds or is to hold; at least as long as Runs
}
