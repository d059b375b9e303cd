package wire

import (
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/policy"
	"nightferry/internal/runs"
)

// State is what a site should hold: level-triggered, complete, ordered by the
// revision that is its signed number. A site drops one that is older than what
// it has.
type State struct {
	_       struct{}  `cbor:",toarray"`
	At      int64     // Unix milliseconds, the Core's clock as corrected by the store's
	Store   string    // scheme://host[:port] that every URL has; never another than at enrolment
	Beat    uint32    // seconds between beats
	Rate    int64     // bytes per second of the whole site; 0: no limit
	Desired []Desired // by channel
	Halt    []byte    // the signed halt object, the same that lies in the bucket; empty: the site has seen its epoch

	// The site's place, which its windows and timetables are read by, also
	// while the Core is away.
	Zone       string  // IANA name; empty: UTC
	Where      []int64 // latitude and longitude in millionths of a degree; empty: unknown
	Rates      string  // timetable, as package window writes it; empty: none
	Limit      string  // timetable that an operator has put in its place; empty: none
	LimitUntil int64   // Unix seconds when Limit ends; 0: when it is lifted

	// Rehearsal is the clock by which this site reads all that is said of when,
	// see window.Motion: from and to in Unix milliseconds, and the speed; empty:
	// the real one.
	Rehearsal []int64

	Region string // that orders to stop count the site to; empty: the one of its enrolment

	Core []string // URLs that the site dials from now on; empty: those that it knows
}

// Desired is what a site should hold of one channel.
type Desired struct {
	_       struct{}      `cbor:",toarray"`
	Channel string        // its name
	Number  uint64        // of the release; 0: none published yet
	Release digest.Digest // of the release object
	Target  string        // folder at the site
	Nonce   []byte        // 16 bytes, to be repeated in the attestation
	Start   uint64        // grows with every order to start now; 0: never ordered
	DryRun  bool          // the order Start is a dry run: report what would move, change nothing
	Rehash  bool          // the order Start reads every byte

	Now    bool  // the order Start is obeyed also while no window is open
	Bytes  int64 // of the release
	Check  uint8 // the order Start is a check, which changes nothing: CheckQuick or CheckFull; 0: it is none
	Verify bool  // the order Start was given to verify
	Adopt  bool  // the order Start fills a target that held a release and has no record of it any more

	policy.Policy `cbor:"policy"` // the tag makes it one element, an array of its own
}

// The checks of Desired.
const (
	CheckQuick = 1 // names, sizes and times
	CheckFull  = 2 // every byte
)

// Hello is what a site holds.
type Hello struct {
	_          struct{} `cbor:",toarray"`
	Generation []byte   // 16 random bytes of the site's database: sequences start again with a new one
	Version    string   // of the agent
	System     string   // GOOS/GOARCH
	At         int64    // Unix milliseconds, the site's clock
	StoreClock int64    // milliseconds that the store's clock is ahead of the site's
	Trust      uint64   // newest trust document seen
	Revision   uint64   // newest State accepted
	Epoch      uint64   // newest halt epoch seen
	Holds      []Held
	Instance   []byte // 16 random bytes of this process: two that alternate are two machines with one identity
	Machine    string // the machine's name and addresses, for people
}

// Held is a release that a site holds, as far as it knows.
type Held struct {
	_        struct{} `cbor:",toarray"`
	Channel  string
	Number   uint64
	Release  digest.Digest
	Verified int64 // Unix seconds of the last attestation
}

// Beat is the site's heartbeat. It is also sent at once when what the site waits
// for changes, and when it has accepted a new revision.
type Beat struct {
	_          struct{} `cbor:",toarray"`
	At         int64    // Unix milliseconds, the site's clock
	StoreClock int64    // milliseconds that the store's clock is ahead of the site's
	Trust      uint64
	Revision   uint64
	Epoch      uint64
	Spooled    uint64 // events not yet acknowledged
	Instance   []byte // as in Hello
	Waits      []Wait // at most MaxWaits, by channel
	Leaving    bool   // the agent stops now, and is not connected any more
}

// Wait is why a channel has not started what it should. A channel that holds
// what it should, or is running, has none.
type Wait struct {
	_       struct{} `cbor:",toarray"`
	Channel string
	Why     Why
	Until   int64  // Unix seconds, when it ends by itself; 0: not known
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
	WhyRetry                     // the last try failed: Text tells why
	WhyLifted                    // a halt was lifted: starts are spread
	WhyTurn                      // other channels have their turn before
)

var whyNames = [...]string{WhyUnreadable: "unreadable", WhyRefused: "refused", WhyClock: "clock", WhyHalted: "halted", WhySilent: "silent",
	WhyWindow: "window", WhyRate: "rate", WhyRetry: "retry", WhyLifted: "lifted", WhyTurn: "turn"}

// String is the reason as views show it; empty: none that is known.
func (w Why) String() string {
	if int(w) < len(whyNames) {
		return whyNames[w]
	}
	return ""
}

// Bounds of what a site tells of its waits and of itself.
const (
	MaxWaits    = 256
	MaxWaitText = 512 // bytes
	MaxMachine  = 256 // bytes
)

// Stopped lists the halt orders that a site obeys. The site sends it until the
// Core answers with Confirmed. It always has the order that was given on the
// site itself; if that is missing, it was lifted.
type Stopped struct {
	_      struct{} `cbor:",toarray"`
	Number uint64   // grows with each change; repeated in Confirmed
	Epoch  uint64   // of the newest halt object accepted
	Orders []Stop
	Object []byte // that halt object, if the Core has asked for it
}

// Confirmed answers a Stopped: the Core has taken all that it says.
type Confirmed struct {
	_      struct{} `cbor:",toarray"`
	Number uint64   // of the Stopped
	Want   bool     // the Core does not know the halt object of that epoch: send it
}

// Stop is an order that a site obeys: nothing moves there that it forbids.
type Stop struct {
	_      struct{} `cbor:",toarray"`
	Order  halt.ID  // zero: it was given on the site itself, and is lifted only there
	Heard  int64    // Unix milliseconds when it came, by the store's clock
	At     int64    // Unix milliseconds when the last byte had moved, by the store's clock
	Bytes  int64    // that came from the store between the two
	By     string   // of the order given on the site: who gave it
	Reason string   // of the order given on the site
}

// MaxStops bounds the orders of one Stopped.
const MaxStops = 256

// Progress is how far a run is. At most one a second per channel; it may be
// lost.
type Progress struct {
	_             struct{} `cbor:",toarray"`
	Run           []byte
	Channel       string
	runs.Progress `cbor:"progress"`
}

// MaxAsk bounds the keys of one Ask, so that the answer fits a message.
const MaxAsk = 256

// Ask is for URLs of objects that the site's desired releases need.
type Ask struct {
	_    struct{} `cbor:",toarray"`
	ID   uint64   // repeated in the answer
	Keys []string // at most MaxAsk
}

// URLs lends one read of each object, and of the halt object whether asked for
// or not: no content can be read for longer than the order to stop.
type URLs struct {
	_       struct{} `cbor:",toarray"`
	ID      uint64
	Until   int64 // Unix seconds by the store's clock, when they expire
	Lent    []URL
	Refused []Refused
}

// URL is a secret: it is never logged.
type URL struct {
	_   struct{} `cbor:",toarray"`
	Key string
	URL string
}

// Refused says why a URL was not lent. Absent: the store has no such object
// (only said of objects whose absence is an answer).
type Refused struct {
	_      struct{} `cbor:",toarray"`
	Key    string
	Absent bool
	Why    string
}

// Ack says that all job data up to the signed number is committed. Want is
// set when there is a gap: the sequence that must come next.
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

// Refusal says that the Core does not do what was asked.
type Refusal struct {
	_    struct{} `cbor:",toarray"`
	Of   string   // the verb
	Code string   // one word: unknown, used, expired, revoked, forged, version, busy
	Why  string   // with the remedy
}
