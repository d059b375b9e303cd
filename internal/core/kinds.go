package core

// Kind is what sort of problem an incident is. The words never change;
// docs/operations.md has a row for each.
type Kind string

// What the Core opens incidents about.
const (
	Forged    Kind = "forged"      // a message with a bad signature
	Revoked   Kind = "revoked"     // a message of a site that has no identity
	Protocol  Kind = "protocol"    // a message of a newer protocol
	Malformed Kind = "malformed"   // a message that does not parse
	Denied    Kind = "denied"      // the bus refused somebody
	TokenBad  Kind = "token"       // a token was used twice, expired, or unknown
	BadAsk    Kind = "ask"         // a site asked for what its releases do not need
	BadProof  Kind = "attestation" // a site's attestation is not about its release
	Clock     Kind = "clock"       // a site's clock is off
	Silent    Kind = "silent"      // a site was not heard
	Full      Kind = "ledger-full" // the ledger's disk is full
	Store     Kind = "store"       // the store does not answer, or not well
	LogAccess Kind = "log-access"  // somebody changed who can read a log folder
	Rendering Kind = "log"         // a log file cannot be written
	Lost      Kind = "lost-events" // a site's events are missing
	Behind    Kind = "behind"      // a site holds a newer release than the Core knows
	MailDown  Kind = "mail"        // mails cannot be delivered
	HookDown  Kind = "webhook"     // the webhook does not take notices
	Publishes Kind = "publish"     // a channel could not be published

	SourceDamage Kind = "source-damage" // a source's bytes are not those that were published
	Unmeasured   Kind = "measure"       // a source could not be measured
	BucketBad    Kind = "bucket"        // the store lacks what releases need
	Ledger       Kind = "ledger"        // the ledger fails, and its disk is not full
	Inside       Kind = "core"          // something else of the Core's own fails

	Discrepancy Kind = "discrepancy" // a site's files are not what was put there
	Stale       Kind = "stale"       // a site lacks a release after its window

	ClusterBad Kind = "cluster"         // one's own NATS cluster is away, or does not take the Core's users
	NotCut     Kind = "cluster-revoked" // somebody revoked is still connected to it
	SiteSays   Kind = "site"            // prefix of what a site reports: site-<its kind>
)

// Kinds lists them, for the documentation's test.
func Kinds() []Kind {
	return []Kind{Forged, Revoked, Protocol, Malformed, Denied, TokenBad, BadAsk, BadProof, Clock, Silent, Full, Store, LogAccess, Rendering, Lost, Behind, Publishes, MailDown, HookDown, Discrepancy, Stale, SourceDamage, Unmeasured, BucketBad, Ledger, Inside, ClusterBad, NotCut, SiteSays}
}
