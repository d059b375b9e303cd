// Package policy is the one definition of how a channel is treated at a site.
// The configuration resolves a Policy, the fleet's model holds it, the Core
// sends it to the site unchanged, and the agent hands it to apply and verify. A
// new rule is a new field here, and nowhere else.
package policy

import "time"

// Policy is how one channel is treated at one site. Its zero value is valid.
type Policy struct {
	_ struct{} `cbor:",toarray"`

	Rate     int64  // bytes per second of the channel; 0: no limit but the site's
	Windows  string // when it may move, as package window reads it; empty: always
	Priority int    // the higher moves first; with the same, the smaller

	Partial    bool     // locked files: the rest is committed, and the run ends incomplete; false: nothing is committed until all can be
	Prune      bool     // also delete what the site added
	Ignore     []string // exclude patterns, as package scan reads them, of what the site may keep: not reported and not pruned
	ReportOnly bool     // differences from a release that the site holds are reported, and repaired only on request

	Scrub     time.Duration // from one reading of every byte to the next; 0: never
	ScrubRate int64         // bytes per second that checks read; 0: no limit
}

// MaxIgnore bounds the bytes of a Policy's Ignore together, so that the desired
// state of a site with many channels fits one message.
const MaxIgnore = 16 << 10
