package wire

import (
	"nightferry/internal/halt"
	"nightferry/internal/policy"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// revisionBits is how many bits of a revision count the changes of one incarnation. The bits above them are the
// incarnation: the number that the Core has taken in the bucket at its start.
const revisionBits = 24

// FirstRevision returns the revision with which an incarnation starts.
func FirstRevision(incarnation uint64) uint64 { return incarnation << revisionBits }

// IncarnationOf returns the incarnation that issued a revision.
func IncarnationOf(revision uint64) uint64 { return revision >> revisionBits }

// State is the complete desired state of a site. Its signed number is its
// revision; under 0 it carries only halt orders. A site drops a State older than
// its own, and obeys its halt orders.
type State struct {
	_       struct{}  `cbor:",toarray"`
	At      int64     // Unix milliseconds, the Core's clock as corrected by the store's
	Store   string    // scheme://host[:port] of every URL; the same as at enrollment
	Beat    uint32    // seconds between heartbeats
	Rate    int64     // bytes per second of the whole site; 0: no limit
	Desired []Desired // by channel
	Halt    []byte    // the signed halt object, as in the bucket; empty: the site has seen its epoch

	// The site's place. Windows and timetables depend on it, also while the
	// Core is unreachable.
	Zone       string  // IANA name; empty: UTC
	Where      []int64 // latitude and longitude in millionths of a degree; empty: unknown
	Rates      string  // timetable, as package window writes it; empty: none
	Limit      string  // timetable that an operator has set instead; empty: none
	LimitUntil int64   // Unix seconds when Limit ends; 0: when it is lifted

	// Rehearsal is the simulated clock for all times in this state, see
	// window.Motion: from and to in Unix milliseconds, and the speed. Empty:
	// the real clock.
	Rehearsal []int64

	Region string // region of the site for halt orders; empty: the one of its enrollment

	Core []string // URLs that the site dials from now on; empty: those it knows

	Withheld []string // channels that are not in Desired: the site keeps its earlier desired state of each
}

// Desired is the desired state of one channel at a site.
type Desired struct {
	_       struct{}            `cbor:",toarray"`
	Channel string              // its name
	Number  trust.ReleaseNumber // of the release; 0: none published yet
	Release trust.ReleaseDigest // of the release object
	Target  string              // folder at the site
	Nonce   []byte              // 16 bytes, to be repeated in the attestation
	Start   uint64              // grows with every sync request; 0: never requested
	DryRun  bool                // the request Start is a dry run: report changes, make none
	Rehash  bool                // the request Start reads every byte

	Now    bool  // the request Start also applies while no window is open
	Bytes  int64 // of the release
	Check  uint8 // the request Start is a check, which changes nothing: CheckQuick or CheckFull; 0: no check
	Verify bool  // the request Start came from verify
	Adopt  bool  // the request Start fills a target that held a release and lost its record

	Former Former `cbor:"former"` // the Core's record of Target, for an agent that has lost its own record

	policy.Policy `cbor:"policy"` // the tag makes it one element, an array of its own
}

// Former is the Core's record of a target, from the runs that the site has reported.
type Former struct {
	_       struct{}            `cbor:",toarray"`
	Filled  bool                // releases were applied to the target; false: nothing is known of it
	Number  trust.ReleaseNumber // the release that the site attested last; 0: none
	Release trust.ReleaseDigest
	Place   Place `cbor:"place"` // of the newest run that found content of a release there
}

// Place is where a run has found a target.
type Place struct {
	_       struct{} `cbor:",toarray"`
	Target  string   // the folder; empty: the run found no content of a release
	Volume  string   // mount point of the volume that holds it; empty: not known
	Machine []byte   // 16 bytes that differ between machines; empty: not known
}

// MachineSize is the length of Place.Machine in bytes.
const MachineSize = 16

// The checks of Desired.
const (
	CheckQuick = 1 // names, sizes and times
	CheckFull  = 2 // every byte
)

// Hello reports the releases and the state of a site.
type Hello struct {
	_          struct{} `cbor:",toarray"`
	Generation []byte   // 16 random bytes of the site's database; a new generation restarts the sequences
	Version    string   // of the agent
	System     string   // GOOS/GOARCH
	At         int64    // Unix milliseconds, the site's clock
	StoreClock int64    // milliseconds that the store's clock is ahead of the site's
	Trust      uint64   // newest trust document seen
	Revision   uint64   // newest State accepted
	Epoch      uint64   // newest halt epoch seen
	Holds      []Held
	Spooled    uint64 // as in Beat
	Instance   []byte // 16 random bytes of this process: two that alternate are two machines with one identity
	Machine    string // the machine's name and addresses, for people

	// Lineage, Starts and Started are the record of starts in the agent's state. A copy of the state continues it on its
	// own, so two copies differ after their next start.
	Lineage []byte // 16 random bytes, of the state
	Starts  uint64 // how many processes have started from it, with this one; 0: this start could not be recorded
	Started []byte // the first StartID bytes of the Instance of the latest of them, newest first; at most MaxStarted
}

// StartID is the length of a start in Hello.Started in bytes, and MaxStarted bounds their number.
const (
	StartID    = 8
	MaxStarted = 64
)

// Held is a release that a site holds, as far as it knows.
type Held struct {
	_        struct{} `cbor:",toarray"`
	Channel  string
	Number   trust.ReleaseNumber
	Release  trust.ReleaseDigest
	Verified int64  // Unix seconds of the last attestation
	Obeyed   uint64 // the newest Desired.Start that a run has served
}

// Beat is the site's heartbeat. The site also sends it at once when its waits
// change and when it has accepted a new revision.
type Beat struct {
	_          struct{} `cbor:",toarray"`
	At         int64    // Unix milliseconds, the site's clock
	StoreClock int64    // milliseconds that the store's clock is ahead of the site's
	Trust      uint64
	Revision   uint64
	Epoch      uint64
	Holds      []Held
	Spooled    uint64 // events not yet acknowledged; 0: the Core has the reports of all of Holds
	Instance   []byte // as in Hello
	Waits      []Wait // at most MaxWaits, by channel
	Leaving    bool   // the agent stops and disconnects now
}

// Wait is the reason why a channel has not started its run, or why its run waits. A channel that
// makes progress, or holds its desired release, has none.
type Wait struct {
	_       struct{} `cbor:",toarray"`
	Channel string
	Why     Why
	Until   int64  // Unix seconds of its automatic end; 0: not known
	Text    string // details for people; at most MaxWaitText bytes
}

// Why is the reason of a Wait.
type Why uint8

// The reasons, in the order in which the agent looks for them.
const (
	WhyUnreadable Why = iota + 1 // the windows of the desired state cannot be read: the agent is too old
	WhyRefused                   // the site does not allow the target
	WhyClock                     // no clock was compared since the agent started, or clocks are too far apart
	WhyHalted                    // by a halt order
	WhySilent                    // neither the Core nor the store's halt orders can be read
	WhyWindow                    // the window is closed
	WhyRate                      // the rate is 0
	WhyRetry                     // the last try failed: Text has the cause
	WhyLifted                    // a halt was lifted: starts are spread
	WhyTurn                      // other channels go first: Text names those that run
	WhySpace                     // a volume was full: Text has the cause
	WhyURL                       // the Core has not lent the URLs that the run needs
)

var whyNames = [...]string{WhyUnreadable: "unreadable", WhyRefused: "refused", WhyClock: "clock", WhyHalted: "halted", WhySilent: "silent",
	WhyWindow: "window", WhyRate: "rate", WhyRetry: "retry", WhyLifted: "lifted", WhyTurn: "turn", WhySpace: "space", WhyURL: "url"}

// String returns the reason as shown to people, or "" if it is unknown.
func (w Why) String() string {
	if int(w) < len(whyNames) {
		return whyNames[w]
	}
	return ""
}

// Bounds of a site's waits and of its description.
const (
	MaxWaits    = 256
	MaxWaitText = 512 // bytes
	MaxMachine  = 256 // bytes
)

// Stopped lists the halt orders that a site obeys. The site sends it until the
// Core answers with Confirmed. It always includes the halt order given on the
// site itself; if that is missing, it was lifted.
type Stopped struct {
	_      struct{} `cbor:",toarray"`
	Number uint64   // grows with each change; repeated in Confirmed
	Epoch  uint64   // of the newest halt object accepted
	Orders []Stop
	Object []byte // that halt object, if the Core has asked for it

	Instance []byte // as in Hello: the process that obeys
}

// Confirmed acknowledges a Stopped: the Core has recorded its content.
type Confirmed struct {
	_      struct{} `cbor:",toarray"`
	Number uint64   // of the Stopped
	Want   bool     // the Core does not know the halt object of that epoch: send it
}

// Stop is a halt order that a site obeys.
type Stop struct {
	_      struct{} `cbor:",toarray"`
	Order  halt.ID  // zero: it was given on the site itself, and is lifted only there
	Heard  int64    // Unix milliseconds when it arrived, by the store's clock
	At     int64    // Unix milliseconds when the last byte had moved, by the store's clock
	Bytes  int64    // received from the store between the two
	By     string   // author of a halt order given on the site
	Reason string   // reason of a halt order given on the site
	Ago    int64    // milliseconds from the stop to the sending of this message; 0: not known
}

// MaxStops bounds the halt orders of one Stopped.
const MaxStops = 256

// Progress is the progress of a run, sent at most once a second per channel. It
// may be lost.
type Progress struct {
	_             struct{} `cbor:",toarray"`
	Run           []byte
	Channel       string
	runs.Progress `cbor:"progress"`
}

// MaxAsk bounds the keys of one Ask, so that the answer fits a message.
const MaxAsk = 256

// Ask requests URLs of objects that the site's desired releases need.
type Ask struct {
	_    struct{} `cbor:",toarray"`
	ID   uint64   // repeated in the answer
	Keys []string // at most MaxAsk
}

// URLs lends one read of each object. It always includes the halt object, so
// that no content stays readable for longer than the halt orders.
type URLs struct {
	_       struct{} `cbor:",toarray"`
	ID      uint64
	Until   int64 // Unix seconds by the store's clock, when they expire
	Lent    []URL
	Refused []Refused
	Next    []URL // of the next MaxNext trust documents, which do not exist yet: their keys may sign later halt objects
}

// MaxNext bounds the trust documents that a site reads by itself while the Core is silent.
const MaxNext = 8

// URL is a secret: it is never logged.
type URL struct {
	_   struct{} `cbor:",toarray"`
	Key string
	URL string
}

// Refused gives the reason why a URL was not lent. If Absent is set, the store
// has no such object; the Core sets it only if the absence is an answer.
type Refused struct {
	_      struct{} `cbor:",toarray"`
	Key    string
	Absent bool
	Why    string
}

// Ack reports that all job data up to the signed number is committed. If there
// is a gap, Want is the sequence that must come next.
type Ack struct {
	_          struct{} `cbor:",toarray"`
	Generation []byte
	Want       uint64
	Full       bool // the Core cannot commit now (its disk is full): wait
}

// Renew asks for another 90 days.
type Renew struct {
	_  struct{} `cbor:",toarray"`
	At int64
}

// Renewed is the site's new credential for the bus.
type Renewed struct {
	_   struct{} `cbor:",toarray"`
	JWT string
}

// Refusal reports that the Core does not grant a request.
type Refusal struct {
	_    struct{} `cbor:",toarray"`
	Of   string   // the verb
	Code string   // one word: unknown, used, expired, revoked, forged, version, busy
	Why  string   // with the remedy
}
