package api

import (
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/trust"
)

// Task is the state of one of the Core's periodic tasks.
type Task struct {
	Name    string        `json:"name"`
	Period  clock.Seconds `json:"period_seconds,omitempty"` // absent: when due
	Bound   clock.Seconds `json:"bound_seconds"`            // how late the end of a turn may be
	Running time.Time     `json:"running,omitzero"`         // since when, while it runs
	Success time.Time     `json:"success,omitzero"`         // end of the last turn that succeeded; absent: none has yet
	Error   string        `json:"error,omitempty"`          // of the last turn, if it failed
	Overdue bool          `json:"overdue,omitempty"`
}

// Held lists the releases that a Core's sites hold or should hold.
type Held struct {
	Repo     string                           `json:"repository"`
	Releases map[string][]trust.ReleaseNumber `json:"releases"` // by channel, ascending
	Oldest   map[string][]string              `json:"oldest"`   // holders of the first of them
}

// Reloaded is the result of a reload.
type Reloaded struct {
	Config   string   `json:"config"`
	Channels int      `json:"channels"`
	Domains  int      `json:"domains"`
	Sites    int      `json:"sites"`
	Former   []string `json:"former,omitempty"`  // public addresses that were in force before
	Unmoved  []string `json:"unmoved,omitempty"` // sites that know no others yet
	Faults   []string `json:"faults,omitempty"`  // why alerts cannot be delivered: a secret or a file is missing
}

// TokenRequest asks for enrolment tokens: one of a site, or those of a wave.
type TokenRequest struct {
	Site  string        `json:"site,omitempty"`
	Wave  int           `json:"wave,omitempty"`
	Scope Scope         `json:"scope"`
	Life  clock.Seconds `json:"life_seconds,omitempty"`
}

// IssuedToken is a new enrolment token. Text is the secret.
type IssuedToken struct {
	ID        string    `json:"id"`
	Domain    string    `json:"domain"`
	Site      string    `json:"site"`
	Expires   time.Time `json:"expires"`
	Text      string    `json:"token"`
	Joined    time.Time `json:"joined,omitzero"`     // when the site's current identity was enrolled; using the token ends that identity
	Connected bool      `json:"connected,omitempty"` // the agent with that identity sent a message recently
	Seen      time.Time `json:"seen,omitzero"`       // when its last message arrived
	Version   string    `json:"version,omitempty"`   // of its agent
}

// Subject names a site or a domain, and the reason for the audit.
type Subject struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// IncidentNote is a person's note about an open incident.
type IncidentNote struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
	// Silent is until when no alert is sent of an acknowledged incident; at most 30 days. Absent: only its reminders are not sent.
	Silent time.Time `json:"silent,omitzero"`
}

// AlertRequest asks for a test alert.
type AlertRequest struct {
	To string `json:"to,omitempty"` // empty: all recipients
}

// AlertTest is the result of one test.
type AlertTest struct {
	To    string `json:"to"`
	Error string `json:"error,omitempty"` // absent: it was accepted
}

// Secret names a secret of the vault. It holds no value.
type Secret struct {
	Name     string          `json:"name"`
	Versions []SecretVersion `json:"versions"` // oldest first
}

// SecretVersion is one version of a secret.
type SecretVersion struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
}

// SecretRequest is a change of the vault. A value never becomes part of a URL.
type SecretRequest struct {
	Name  string `json:"name"`
	Value []byte `json:"value,omitempty"` // base64
	Prune bool   `json:"prune,omitempty"` // remove the versions before it
}

// SecretChange is the result of a SecretRequest.
type SecretChange struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Removed int    `json:"removed"`
}

// APITokenRequest asks for an API token.
type APITokenRequest struct {
	Name   string        `json:"name"`             // for the audit
	Role   string        `json:"role"`             // logs, viewer, operator, publisher or admin
	Domain string        `json:"domain,omitempty"` // only over the sites of this domain
	Region string        `json:"region,omitempty"` // only over the sites of this region
	Life   clock.Seconds `json:"life_seconds"`     // a minute to 366 days
}

// APIToken is an API token, without its text.
type APIToken struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Domain    string    `json:"domain,omitempty"`
	Region    string    `json:"region,omitempty"`
	Issued    time.Time `json:"issued"`
	IssuedBy  string    `json:"issued_by"`
	Expires   time.Time `json:"expires"`
	Used      time.Time `json:"used,omitzero"` // last use, to some minutes; absent: never
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
}

// NewAPIToken is a new API token. Text is the secret, which is shown once.
type NewAPIToken struct {
	APIToken
	Text string `json:"token"`
}

// ConsoleAddress is where the console is.
type ConsoleAddress struct {
	URL string `json:"url,omitempty"` // absent: the console is off
	// Authority is the certificate of the Core's authority (PEM); absent: the certificate is of files of your own.
	Authority string `json:"authority,omitempty"`
}

// ConsoleLink signs the caller in to the console, once.
type ConsoleLink struct {
	URL   string    `json:"url"`
	Until time.Time `json:"until"`
}

// Session is a person who has signed in to the console.
type Session struct {
	ID      string    `json:"id"`
	Person  string    `json:"person"`
	Subject string    `json:"subject,omitempty"` // at the identity provider; absent: a console link
	Address string    `json:"address"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	Expires time.Time `json:"expires"`
}

// SessionEnd names a session, or a person whose sessions all end.
type SessionEnd struct {
	ID     string `json:"id,omitempty"`
	Person string `json:"person,omitempty"`
}

// APITokenID names an API token.
type APITokenID struct {
	ID string `json:"id"`
}
