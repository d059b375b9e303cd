package ledger

import (
	"context"
	"time"
)

// CoreID returns the 16 random bytes that were drawn when the ledger was made.
func (l *Ledger) CoreID() [16]byte { panic("later") }

// Revision returns the highest revision that was ever given out.
func (l *Ledger) Revision(ctx context.Context) (uint64, error) { panic("later") }

// NextRevision gives out a revision: one more than any before.
func (l *Ledger) NextRevision(ctx context.Context) (uint64, error) { panic("later") }

// AdoptRevision makes the revision at least atLeast, because a site has seen
// that one (the ledger may be a restored backup), and returns it.
func (l *Ledger) AdoptRevision(ctx context.Context, atLeast uint64) (uint64, error) { panic("later") }

// AddToken keeps a new token with the hash of its secret. Issued is given by
// the ledger; Used and UsedBy are ignored.
func (l *Ledger) AddToken(ctx context.Context, t Token, hash [32]byte) (Token, error) { panic("later") }

// TakeToken uses the token up, for the key public, and returns it. Of many
// callers one gets it; the others get ErrUsedToken, in an error that tells
// when it was used. The same key may take it again until it expires, because
// the answer to the first time may have been lost. ErrUnknownToken stands for
// a wrong secret too.
func (l *Ledger) TakeToken(ctx context.Context, id string, hash [32]byte, public string) (Token, error) {
	panic("later")
}

// Tokens lists all tokens, the newest first.
func (l *Ledger) Tokens(ctx context.Context) ([]Token, error) { panic("later") }

// Enrol makes id the identity of its site and returns the one that it
// supersedes, so that it can be revoked, or nil. Ended and Why are ignored; a
// zero Enrolled is now. A key that was ever another identity is ErrConflict.
func (l *Ledger) Enrol(ctx context.Context, id Identity) (old *Identity, err error) { panic("later") }

// Renew notes that an identity's JWT lives longer, and the agent's version.
func (l *Ledger) Renew(ctx context.Context, public string, jwtExpires time.Time, version string) error {
	panic("later")
}

// Revoke ends the identity of a site and returns it; ErrNotFound when it has
// none.
func (l *Ledger) Revoke(ctx context.Context, domain, site, why string) (Identity, error) {
	panic("later")
}

// Identity returns the site's identity, or ErrNotFound.
func (l *Ledger) Identity(ctx context.Context, domain, site string) (Identity, error) {
	panic("later")
}

// Identities lists the identities of all sites; with ended, also those of the
// past, whose JWTs may not have expired yet.
func (l *Ledger) Identities(ctx context.Context, ended bool) ([]Identity, error) { panic("later") }

// Seen notes sightings of agents, in one transaction. An older one than is
// known changes nothing.
func (l *Ledger) Seen(ctx context.Context, list []Sighting) error { panic("later") }

// Sightings lists what is known of all agents.
func (l *Ledger) Sightings(ctx context.Context) ([]Sighting, error) { panic("later") }

// AddRelease keeps a release. Adding it again changes nothing; another one
// under the same number is ErrConflict.
func (l *Ledger) AddRelease(ctx context.Context, r Release) error { panic("later") }

// Release returns a release, or ErrNotFound.
func (l *Ledger) Release(ctx context.Context, channel string, number uint64) (Release, error) {
	panic("later")
}

// Releases lists the newest limit releases of a channel (0: 1 000), the newest
// first; an empty channel stands for all.
func (l *Ledger) Releases(ctx context.Context, channel string, limit int) ([]Release, error) {
	panic("later")
}

// SetDesired sets what sites should hold, all or nothing, and returns the
// revision of the change. Rows that say what is there already change nothing;
// when none does, no new revision is taken.
func (l *Ledger) SetDesired(ctx context.Context, list []Desired) (revision uint64, err error) {
	panic("later")
}

// DropDesired forgets what a site should hold of a channel. The site's
// revision grows when there was anything.
func (l *Ledger) DropDesired(ctx context.Context, domain, site, channel string) (revision uint64, err error) {
	panic("later")
}

// DesiredOf returns what a site should hold, by channel, and the revision of
// its last change (0: never any).
func (l *Ledger) DesiredOf(ctx context.Context, domain, site string) (list []Desired, revision uint64, err error) {
	panic("later")
}

// AllDesired returns what all sites should hold, by domain, site and channel.
func (l *Ledger) AllDesired(ctx context.Context) ([]Desired, error) { panic("later") }

// Commit keeps a site's events, in one transaction: those up to the last
// committed sequence of the generation are ignored, so that a batch may come
// again, also in other pieces. A batch that leaves a gap is a *GapError.
func (l *Ledger) Commit(ctx context.Context, b Batch) (Committed, error) { panic("later") }

// Skip accepts that the events of a generation before next are lost (the
// ledger is a restored backup, and the site has forgotten them).
func (l *Ledger) Skip(ctx context.Context, domain, site string, generation [16]byte, next uint64) error {
	panic("later")
}

// Append keeps the Core's own events: of its own runs (domain and site empty)
// or of a run that it records for a site, such as one that was missed. They
// have no sequence.
func (l *Ledger) Append(ctx context.Context, domain, site string, events []Event) (Committed, error) {
	panic("later")
}

// Run returns a run, or ErrNotFound.
func (l *Ledger) Run(ctx context.Context, id RunID) (Run, error) { panic("later") }

// FindRuns returns the runs, at most 10, whose id begins with the hexadecimal
// digits of prefix.
func (l *Ledger) FindRuns(ctx context.Context, prefix string) ([]Run, error) { panic("later") }

// Runs lists runs, the newest first.
func (l *Ledger) Runs(ctx context.Context, f RunFilter) ([]Run, error) { panic("later") }

// RunEvents calls fn with the run's events, in the order in which they
// happened, until fn returns an error. Only Run, Channel, Kind, At and Body are
// set. After MarkRendered there are none.
func (l *Ledger) RunEvents(ctx context.Context, id RunID, fn func(Event) error) error {
	panic("later")
}

// Unrendered lists the runs that have finished and whose log file is not
// complete, the oldest first.
func (l *Ledger) Unrendered(ctx context.Context) ([]Run, error) { panic("later") }

// MarkRendered says that the run's log file is complete and durable, and drops
// the events that it was made of.
func (l *Ledger) MarkRendered(ctx context.Context, id RunID) error { panic("later") }

// Exceptions lists files that failed, were locked or repaired, the newest
// first.
func (l *Ledger) Exceptions(ctx context.Context, f Filter) ([]Exception, error) { panic("later") }

// Attestations lists what sites stated, the newest first.
func (l *Ledger) Attestations(ctx context.Context, f Filter) ([]Attestation, error) {
	panic("later")
}

// Holdings lists what each site last attested to hold of each channel, by
// domain, site and channel. Of the filter only the names count.
func (l *Ledger) Holdings(ctx context.Context, f Filter) ([]Holding, error) { panic("later") }

// OpenIncident opens an incident, unless one with that key is open: then the
// report is added to it. opened tells which.
func (l *Ledger) OpenIncident(ctx context.Context, p Problem) (opened bool, err error) {
	panic("later")
}

// Leave notes that an open incident's problem has ended at one site, and
// resolves the incident when that was the last.
func (l *Ledger) Leave(ctx context.Context, key, domain, site string) (resolved bool, err error) {
	panic("later")
}

// Resolve ends the open incident with that key; resolved is false when there
// is none.
func (l *Ledger) Resolve(ctx context.Context, key string) (resolved bool, err error) {
	panic("later")
}

// Incidents lists incidents with their members, the newest first: the open
// ones, or with all the newest 1 000.
func (l *Ledger) Incidents(ctx context.Context, all bool) ([]Incident, error) { panic("later") }

// AddHalt keeps an order. Adding it again changes nothing; another one with
// the same id is ErrConflict.
func (l *Ledger) AddHalt(ctx context.Context, h Halt) error { panic("later") }

// Resume notes that an order is lifted; ErrNotFound when it is not active.
func (l *Ledger) Resume(ctx context.Context, order uint64, by string) error { panic("later") }

// Confirm notes that a site obeys an order. The first word of a site counts.
func (l *Ledger) Confirm(ctx context.Context, order uint64, s Stop) error { panic("later") }

// Halts lists the active orders, or with all the newest 1 000, the newest
// first.
func (l *Ledger) Halts(ctx context.Context, all bool) ([]Halt, error) { panic("later") }

// Audit notes who did what.
func (l *Ledger) Audit(ctx context.Context, d Deed) error { panic("later") }

// Deeds lists the audit, the newest first.
func (l *Ledger) Deeds(ctx context.Context, f DeedFilter) ([]Deed, error) { panic("later") }

// Prune removes what is older than r keeps. It never touches an open incident,
// an active halt, a site's identity, or the events of a run whose log file is
// not complete. It works in small steps, between which others can write; the
// counts hold what was removed even when it returns an error.
func (l *Ledger) Prune(ctx context.Context, r Retention) (Pruned, error) { panic("later") }

// Backup writes a consistent copy of the ledger to path, which must not exist,
// while others go on. The copy is whole or not there.
func (l *Ledger) Backup(ctx context.Context, path string) error { panic("later") }

// Check reads the whole file and returns what is wrong with it.
func (l *Ledger) Check(ctx context.Context) error { panic("later") }
