package core

import "nightferry/internal/kinds"

// Kind is what sort of problem an incident is; the registry in kinds has a row
// for each.
type Kind = kinds.Kind

// What the Core opens incidents about.
const (
	Forged       = kinds.Forged
	Revoked      = kinds.Revoked
	Protocol     = kinds.Protocol
	Malformed    = kinds.Malformed
	Denied       = kinds.Denied
	TokenBad     = kinds.TokenBad
	BadAsk       = kinds.BadAsk
	BadProof     = kinds.BadProof
	Clock        = kinds.Clock
	Cloned       = kinds.Cloned
	Silent       = kinds.Silent
	Absent       = kinds.Absent
	Full         = kinds.Full
	Store        = kinds.Store
	LogAccess    = kinds.LogAccess
	Rendering    = kinds.Rendering
	Lost         = kinds.Lost
	Behind       = kinds.Behind
	MailDown     = kinds.MailDown
	HookDown     = kinds.HookDown
	Publishes    = kinds.Publishes
	SourceDamage = kinds.SourceDamage
	Unmeasured   = kinds.Unmeasured
	BucketBad    = kinds.BucketBad
	Ledger       = kinds.Ledger
	Inside       = kinds.Inside
	Discrepancy  = kinds.Discrepancy
	Stale        = kinds.Stale
	RunFails     = kinds.RunFails
	Overdue      = kinds.Overdue
	ClusterBad   = kinds.ClusterBad
	NotCut       = kinds.NotCut
	SiteSays     = kinds.SiteSays
)

// Kinds lists them, without those that sites report.
func Kinds() []Kind {
	own, _ := kinds.Entries()
	list := []Kind{SiteSays}
	for _, e := range own {
		list = append(list, e.Kind)
	}
	return list
}
