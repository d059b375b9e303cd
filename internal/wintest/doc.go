// Package wintest runs fleets that mix Windows programs under Wine with Linux
// programs: a Linux Core with a Windows site, and a Windows Core with a site
// of each kind, against a real S3 server. Every program is the released one,
// in its own process, and is controlled only by its command line.
//
// scripts/wine --fleet runs it. The tests need a Wine prefix and matching
// build flags, so they are only built with the tag wine. They show Wine's
// behaviour, not that of Windows.
package wintest
