// Package wire defines the messages between the Core and the agents, their
// subjects, signatures and bounds. It uses neither the network nor the clock.
// See docs/format/wire.md.
//
// Every message is signed. A site signs with its own identity key. The Core
// signs with a key to which the repository's trust document gives the role
// Control. So no message bus can forge a message. A signature covers the kind,
// the repository, domain and site, and a number, so no message can pass for
// another.
package wire

import (
	"errors"
	"fmt"
	"strings"
)

// MaxMessage bounds a message in bytes, as the bus carries it.
const MaxMessage = 512 << 10

// MaxInflated bounds a message's payload once it is decompressed.
const MaxInflated = 8 << 20

// EnrolDomain is the domain in the Address of a site without an identity; the token's id is its Site. No domain may
// have this name.
const EnrolDomain = "enroll"

// The verbs of subjects that sites send.
const (
	VerbHello     = "hello"     // Hello: on connecting, and when the held releases change
	VerbBeat      = "beat"      // Beat: the heartbeat
	VerbProgress  = "progress"  // Progress: may be lost
	VerbReport    = "report"    // Report: job data, acknowledged by VerbAck
	VerbAsk       = "ask"       // Ask: for URLs, answered by VerbURLs
	VerbRenew     = "renew"     // Renew: answered by VerbRenewed
	VerbStopped   = "stopped"   // Stopped: the halt orders it obeys; after each hello and change, until answered by VerbConfirmed
	VerbChallenge = "challenge" // Challenge: of an enrolment, answered by VerbNonce
	VerbEnrol     = "enroll"    // Enrol: answered by VerbGrant
)

// The verbs of subjects that the Core sends.
const (
	VerbState     = "state"     // State: the desired state
	VerbAck       = "ack"       // Ack: committed job data
	VerbURLs      = "urls"      // URLs
	VerbRenewed   = "renewed"   // Renewed
	VerbNonce     = "nonce"     // Nonce
	VerbGrant     = "grant"     // Grant
	VerbConfirmed = "confirmed" // Confirmed
	VerbRefuse    = "refuse"    // Refusal: a request was refused
)

// ErrSubject means that a subject is not one of nightferry's.
var ErrSubject = errors.New("not a subject of nightferry")

// ValidName reports whether s may name a domain, region, site or channel: 1 to 63 characters from a-z, 0-9 and '-', not
// starting with '-'. Such a name is valid as one token of a subject and as one path element on every system.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Address is a site as named in subjects and signatures.
type Address struct{ Domain, Site string }

func (a Address) String() string { return a.Domain + "/" + a.Site }

// Up returns the subject on which the site sends verb.
func (a Address) Up(verb string) string { return "nf.up." + a.Domain + "." + a.Site + "." + verb }

// Down returns the subject on which the Core sends verb to the site.
func (a Address) Down(verb string) string { return "nf.down." + a.Domain + "." + a.Site + "." + verb }

// AllUp is the wildcard subject that the Core subscribes to.
const AllUp = "nf.up.>"

// AllDown returns the wildcard subject that the site subscribes to.
func (a Address) AllDown() string { return a.Down(">") }

// ParseUp returns the sender and the verb of a subject. It is the only source
// of a sender's identity.
func ParseUp(subject string) (Address, string, error) { return parseSubject(subject, "up") }

// ParseDown returns the recipient and the verb of a subject.
func ParseDown(subject string) (Address, string, error) { return parseSubject(subject, "down") }

func parseSubject(subject, way string) (Address, string, error) {
	t := strings.Split(subject, ".")
	if len(t) != 5 || t[0] != "nf" || t[1] != way || !ValidName(t[2]) || !ValidName(t[3]) || !ValidName(t[4]) {
		return Address{}, "", fmt.Errorf("%w: %q", ErrSubject, subject)
	}
	return Address{t[2], t[3]}, t[4], nil
}
