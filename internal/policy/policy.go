// Package policy defines the treatment of a channel at a site, in one place.
// The configuration resolves a Policy, the fleet's model holds it, the Core
// sends it to the site unchanged, and the agent passes it to apply and
// verify. A new rule is one new field here; no layer between copies it.
package policy

import "time"

// Policy is the treatment of one channel at one site. Its zero value is
// valid.
type Policy struct {
	_ struct{} `cbor:",toarray"`

	Rate     int64  // bytes per second of the channel; 0: no limit but the site's
	Windows  string // when it may transfer, as package window parses it; empty: always
	Priority int    // the higher goes first, after channels that have waited too long; if equal, the smaller need

	Partial     bool     // true: if files are locked, commit the others, and the run ends incomplete; false: commit nothing until all files can be
	Prune       bool     // also delete files that the site added
	Ignore      []string // exclude patterns, as package scan parses them, of files that the site may keep: neither reported nor pruned
	IgnoreInode bool     // treat a file of unchanged size and modification time as unchanged, for volumes whose change times or inode numbers are not stable
	ReportOnly  bool     // report differences from a release that the site holds, and repair them only on request

	Scrub     time.Duration // interval between complete reads of all bytes; 0: never
	ScrubRate int64         // read rate of checks in bytes per second; 0: no limit
}

// MaxIgnore bounds the total bytes of a Policy's Ignore, so that the desired
// state of a site with many channels fits one message.
const MaxIgnore = 16 << 10
