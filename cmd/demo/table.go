package main

import "fmt"

// tables prints how much data moved, at most 80 characters wide.
func (d *demo) tables() {
	d.say("\nPublished:")
	d.say("  %-9s %7s %7s %10s %10s %6s %9s %8s", "channel", "release", "files", "read", "sent", "packs", "requests", "seconds")
	for _, r := range d.pushes {
		d.say("  %-9s %7d %7d %10s %10s %6d %9d %8.1f", r.channel, r.number, r.files, size(r.read), size(r.sent), r.packed, r.requests, r.seconds)
	}
	d.say("\nPulled and verified, every byte:")
	d.say("  %-8s %-8s %7s %6s %9s %9s %8s %7s %s", "site", "channel", "release", "files", "moved", "held", "requests", "seconds", "verdict")
	for _, r := range d.pulls {
		d.say("  %-8s %-8s %7d %6d %9s %9s %8d %7.1f %s", r.site, r.channel, r.number, r.files, size(r.moved), size(r.held), r.requests, r.seconds, r.verdict)
	}
	d.say("\n  moved: bytes over the wire, compressed; held: bytes of files already there")
}

// size formats a number of bytes with a suitable unit.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
