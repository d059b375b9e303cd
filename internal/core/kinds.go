package core

import "nightferry/internal/incident"

// Kind is what sort of problem an incident is; the registry in incident has a
// row for each.
type Kind = incident.Kind

// What the Core opens incidents about.
const (
	Forged       = incident.Forged
	Revoked      = incident.Revoked
	Protocol     = incident.Protocol
	Malformed    = incident.Malformed
	Denied       = incident.Denied
	TokenBad     = incident.TokenBad
	BadAsk       = incident.BadAsk
	BadProof     = incident.BadProof
	Clock        = incident.Clock
	Cloned       = incident.Cloned
	Silent       = incident.Silent
	Absent       = incident.Absent
	Full         = incident.Full
	Store        = incident.Store
	LogAccess    = incident.LogAccess
	Rendering    = incident.Rendering
	Lost         = incident.Lost
	Behind       = incident.Behind
	MailDown     = incident.MailDown
	HookDown     = incident.HookDown
	Publishes    = incident.Publishes
	SourceDamage = incident.SourceDamage
	Unmeasured   = incident.Unmeasured
	BucketBad    = incident.BucketBad
	Ledger       = incident.Ledger
	Inside       = incident.Inside
	Discrepancy  = incident.Discrepancy
	Stale        = incident.Stale
	RunFails     = incident.RunFails
	Overdue      = incident.Overdue
	ClusterBad   = incident.ClusterBad
	NotCut       = incident.NotCut
	SiteSays     = incident.SiteSays
)

// Kinds lists them, without those that sites report.
func Kinds() []Kind {
	own, _ := incident.Entries()
	list := []Kind{SiteSays}
	for _, e := range own {
		list = append(list, e.Kind)
	}
	return list
}
