package ledger

import (
	"maps"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/runs"
)

// Token is a one-time permission to enrol one site. The ledger never sees its
// secret, only a hash.
type Token struct {
	ID       string    `json:"id"`
	Domain   string    `json:"domain"`
	Site     string    `json:"site"`
	Issued   time.Time `json:"issued"`
	IssuedBy string    `json:"issued_by"`
	Expires  time.Time `json:"expires"`
	Used     time.Time `json:"used,omitzero"`
	UsedBy   string    `json:"used_by,omitempty"` // the public key that took it
}

// Identity is a key that speaks for a site, now or once.
type Identity struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Public     string    `json:"public"` // NATS user public key
	Enrolled   time.Time `json:"enrolled"`
	JWTExpires time.Time `json:"jwt_expires"`
	Version    string    `json:"version"` // of the agent that enrolled
	// Ended is when a newer enrolment or a revocation ended it; zero: it is the
	// site's identity.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"` // "superseded", or the reason of the revocation
	// Contested is since when two machines use the key; zero: one does. Contest names them.
	Contested time.Time `json:"contested,omitzero"`
	Contest   string    `json:"contest,omitempty"`
}

// Sighting is the Core's last knowledge of a live agent.
type Sighting struct {
	Domain      string        `json:"domain"`
	Site        string        `json:"site"`
	Seen        time.Time     `json:"seen"`
	Version     string        `json:"version"`      // of the agent
	ClockOffset time.Duration `json:"clock_offset"` // the site's clock minus the Core's
	Lag         uint64        `json:"lag"`          // events spooled and not committed
	Revision    uint64        `json:"revision"`     // of the state that the agent has taken over
}

// Release is one published release of a channel.
type Release struct {
	Channel   string        `json:"channel"`
	Number    uint64        `json:"number"`
	Digest    digest.Digest `json:"digest"`
	Tree      digest.Digest `json:"tree"`
	Parent    uint64        `json:"parent,omitempty"`
	Files     int64         `json:"files"`
	Bytes     int64         `json:"bytes"`
	Published time.Time     `json:"published"`
	Run       RunID         `json:"run,omitzero"`
}

// Desired is what one site should hold of one channel.
type Desired struct {
	Domain   string        `json:"domain"`
	Site     string        `json:"site"`
	Channel  string        `json:"channel"`
	Number   uint64        `json:"number"`
	Release  digest.Digest `json:"release"`
	Tree     digest.Digest `json:"tree"`
	Nonce    [16]byte      `json:"-"`            // comes back in the attestation
	Start    uint64        `json:"start"`        // the newest request to start now: a revision of its own; 0: none
	DryRun   bool          `json:"dry_run"`      // report what would move, change nothing
	Mode     uint32        `json:"-"`            // of the request Start, as the caller encodes it
	Body     []byte        `json:"-"`            // whatever else the caller sends to the site, so that a change is noticed
	By       string        `json:"by"`           // who wanted it
	Set      time.Time     `json:"set,omitzero"` // given by the ledger
	Revision uint64        `json:"revision"`     // given by the ledger: of the last change of this row
}

// SiteKey names a site.
type SiteKey struct{ Domain, Site string }

// DesiredKey names a channel at a site.
type DesiredKey struct{ Domain, Site, Channel string }

// Limit is an operator's timetable in place of the configured rates of a site. It
// outlives the site's rows.
type Limit struct {
	Timetable string
	Until     int64 // Unix seconds of the calendar; 0: until it is lifted
}

// DesiredState is what sites should hold.
type DesiredState struct {
	Rows      []Desired
	Revisions map[SiteKey]uint64 // of each site's last change
	Limits    map[SiteKey]Limit
}

// Add joins the state of other sites.
func (s *DesiredState) Add(other *DesiredState) {
	s.Rows = append(s.Rows, other.Rows...)
	maps.Copy(s.Revisions, other.Revisions)
	maps.Copy(s.Limits, other.Limits)
}

// DesiredChange is a change of desired state.
type DesiredChange struct {
	Set    []Desired // Set and Revision are given by the ledger
	Drop   []DesiredKey
	Limits map[SiteKey]Limit // an empty timetable lifts one
}

// Empty reports whether nothing changes.
func (c *DesiredChange) Empty() bool {
	return len(c.Set) == 0 && len(c.Drop) == 0 && len(c.Limits) == 0
}

// Batch is a stretch of a site's spool: event i has sequence First+i.
type Batch struct {
	Domain, Site string
	Generation   [16]byte // of the spool; a new one starts its sequence at 1
	First        uint64
	Events       []Event
}

// Event is one thing that happened in a run. Kind and Body are the caller's
// and come back from [Ledger.RunEvents] as they were; what the ledger itself
// must know stands in the other fields.
type Event struct {
	Run     RunID // zero: of no run; then Body is not kept
	Channel string
	Kind    uint8
	At      time.Time
	Body    []byte

	Start      *Start
	Exceptions []Exception
	Finish     *Finish
	Incidents  []Problem // opened in the same transaction
	Ended      []string  // keys of incidents in which the site's part ends in the same transaction
}

// Start opens a run, or completes its record.
type Start struct {
	Number  uint64
	Release digest.Digest
	Tree    digest.Digest
	Parent  uint64 // the release that the site held
	Trigger string // why it ran: "desired", "sync", "publish"…
	DryRun  bool
}

// Finish ends a run.
type Finish struct {
	State       runs.State // never empty
	Cause       string     // why not better; empty when there is nothing to say
	Totals      runs.Totals
	Attestation *Attestation
}

// Exception is a file that a person may ask about: failed, locked, repaired. A
// site and channel have one for each path, however many runs report it.
type Exception struct {
	Domain  string `json:"domain"`  // given by the ledger
	Site    string `json:"site"`    // given by the ledger
	Channel string `json:"channel"` // given by the ledger
	Path    string `json:"path"`
	Outcome string `json:"outcome"`
	Cause   string `json:"cause,omitempty"`
	Size    int64  `json:"size"`
	// Since First, in run As, each of Count reports had this outcome and cause;
	// the newest is of Run, at Last. All are given by the ledger.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int64     `json:"count"`
	As    RunID     `json:"as"`
	Run   RunID     `json:"run"`
}

// MaxExceptions bounds the exceptions that the ledger keeps of one site: no site
// can fill the disk that all others report to. The logs of runs name every file.
const MaxExceptions = 100_000

// Attestation is a site's signed statement, with the columns to search it by.
type Attestation struct {
	Run        RunID         `json:"run"`     // given by the ledger
	Domain     string        `json:"domain"`  // given by the ledger
	Site       string        `json:"site"`    // given by the ledger
	Channel    string        `json:"channel"` // given by the ledger
	At         time.Time     `json:"at"`
	Nonce      [16]byte      `json:"-"`
	Number     uint64        `json:"number"`
	Release    digest.Digest `json:"release"`
	Tree       digest.Digest `json:"tree"`
	Files      int64         `json:"files"`
	Bytes      int64         `json:"bytes"`
	Read       int64         `json:"read"`    // files read back and compared
	Statted    int64         `json:"statted"` // files known by size and times only
	OldestRead time.Time     `json:"oldest_read,omitzero"`
	// Verified: the caller has compared it with its own measurement, and it
	// matches.
	Verified bool          `json:"verified"`
	Digest   digest.Digest `json:"digest"` // given by the ledger: of Signed
	Signed   []byte        `json:"-"`      // as the site signed it
}

// Run is one run's summary.
type Run struct {
	ID          RunID         `json:"id"`
	Domain      string        `json:"domain,omitempty"` // empty with Site: a run of the Core
	Site        string        `json:"site,omitempty"`
	Channel     string        `json:"channel"`
	Number      uint64        `json:"number"`
	Release     digest.Digest `json:"release"`
	Tree        digest.Digest `json:"tree"`
	Parent      uint64        `json:"parent,omitempty"`
	Trigger     string        `json:"trigger,omitempty"`
	DryRun      bool          `json:"dry_run,omitempty"`
	Started     time.Time     `json:"started"`
	Finished    time.Time     `json:"finished,omitzero"`
	State       runs.State    `json:"state,omitempty"` // empty while it runs
	Cause       string        `json:"cause,omitempty"`
	Totals      runs.Totals   `json:"totals"`
	Attestation digest.Digest `json:"attestation,omitzero"`
	Rendered    time.Time     `json:"rendered,omitzero"` // when its log file was complete
	Late        int64         `json:"late,omitempty"`    // events that came after that: they are not in the log
}

// RunFilter narrows a list of runs; zero fields narrow nothing.
type RunFilter struct {
	Domain, Site, Channel string
	Core                  bool // only the Core's own runs
	State                 runs.State
	Open                  bool      // only those that have not finished
	Since, Until          time.Time // by start; Until is excluded
	Limit                 int       // the newest so many; 0: 1 000
}

// Filter narrows a list of exceptions, attestations or holdings.
type Filter struct {
	Run                   RunID
	Domain, Site, Channel string
	Since, Until          time.Time // Until is excluded
	Limit                 int       // the newest so many; 0: 1 000
}

// Holding is a site's latest attested holding of a channel.
type Holding struct {
	Domain   string        `json:"domain"`
	Site     string        `json:"site"`
	Channel  string        `json:"channel"`
	Number   uint64        `json:"number"`
	Release  digest.Digest `json:"release"`
	Tree     digest.Digest `json:"tree"`
	Since    time.Time     `json:"since"`             // first attested
	Attested time.Time     `json:"attested"`          // last attested
	Verified time.Time     `json:"verified,omitzero"` // last attested and matching
	Run      RunID         `json:"run"`               // of the last attestation
	Files    int64         `json:"files"`             // as last attested; -1: by an older program, which did not keep it
	Bytes    int64         `json:"bytes"`
}

// Committed is what became of a batch.
type Committed struct {
	// Last is the highest sequence of the generation that is in the ledger: the
	// site may forget all up to it.
	Last uint64
	// Fresh counts the events that were not there before.
	Fresh int
	// NewGeneration: the site's spool is another one than before.
	NewGeneration bool
	// Opened and Resolved are the keys of incidents that the batch opened, and
	// ended altogether.
	Opened, Resolved []string
	// Finished are the runs that ended with the batch.
	Finished []RunID
}

// Problem asks for an incident, or for a place in an open one.
type Problem struct {
	Key          string // the same problem has the same key
	Kind         string
	Scope        string // whom it concerns, in words: "site osaka", "region ap"
	Text         string
	Domain, Site string // the member; empty: the Core itself
}

// Incident is a problem that many sites may share.
type Incident struct {
	ID       int64     `json:"id"`
	Key      string    `json:"key"`
	Kind     string    `json:"kind"`
	Scope    string    `json:"scope"`
	Text     string    `json:"text"`
	Opened   time.Time `json:"opened"`
	Last     time.Time `json:"last"`  // last reported
	Count    int64     `json:"count"` // reports
	Resolved time.Time `json:"resolved,omitzero"`
	Closed   string    `json:"closed,omitempty"` // by whom and why, where a person ended it
	Acked    string    `json:"acked,omitempty"`  // by whom, with his note, where somebody knows of it
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
	Left   time.Time `json:"left,omitzero"` // when the problem ended there
}

// Halt is an order to stop, with the sites that confirmed it.
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

// Stop is a site's word that it obeys an order.
type Stop struct {
	Domain     string    `json:"domain"`
	Site       string    `json:"site"`
	Stopped    time.Time `json:"stopped"`
	BytesAfter int64     `json:"bytes_after"` // moved between the order's arrival and the stop
}

// Deed is one line of the audit: who did what to what. Nothing changes or
// removes it later.
type Deed struct {
	ID     int64     `json:"id"` // given by the ledger
	At     time.Time `json:"at"` // given by the ledger
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	Detail string    `json:"detail,omitempty"`
}

// DeedFilter narrows the audit; zero fields narrow nothing.
type DeedFilter struct {
	Who, What, Object string
	NoReads           bool      // leave out reads of the vault, of which there are many a day
	Since, Until      time.Time // Until is excluded
	Limit             int       // the newest so many; 0: 1 000
}

// Retention tells how long to keep what. Zero keeps for ever.
type Retention struct {
	Logs      time.Duration // events of runs that ended, and exceptions since their last report
	Summaries time.Duration // runs, resolved incidents, lifted halts, spent tokens, ended identities, what is known of sites that are gone, and the audit (90 days at least)
	Releases  time.Duration // releases that no site holds or should hold; at least as long as Summaries
}
