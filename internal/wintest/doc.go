// Package wintest runs a fleet of which one half is Windows programs under Wine
// and the other half Linux programs: a Linux Core with a Windows site, and a
// Windows Core with a site of each kind, before a real S3 server. Every program
// is the real one, in a process of its own, told what to do by its command line
// alone.
//
// scripts/wine --fleet runs it: the tests need a Wine prefix and the build
// flags that go with it, so they are built with the tag wine only. What they
// show is Wine's behaviour, not Windows'.
package wintest
