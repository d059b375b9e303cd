//go:build !windows

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPlanAndLimit: what the coming nights will bring is foretold by each site's
// own clock, also as seen from another day; a limit is put in place and lifted,
// and a wrong one is refused before anybody is asked.
func TestPlanAndLimit(t *testing.T) {
	x := newCoreBox(t)
	x.edit("0.0.0.0:4222", "127.0.0.1:0", "0.0.0.0:443", "off", "127.0.0.1:9469", "127.0.0.1:0",
		"sites: {}", "sites:\n  osaka: {domain: corp, region: emea, zone: Asia/Tokyo, windows: 22:00-05:00}\n  lisbon: {domain: corp, region: emea, zone: Europe/Lisbon, windows: '01:30-05:00'}")
	contains(t, x.fails(6, "plan"), "not running")
	x.start()
	source := filepath.Join(x.dir, "content", "package")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "a.msi"), make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	x.must("publish", "package")

	// The night of the change to summer time, after this year's: the window of 01:30 begins when that hour is over.
	spring := lastSundayOfMarch(time.Now().UTC().Year() + 1)
	out := x.table("plan", "--channel", "package", "--at", spring.AddDate(0, 0, -1).Format(time.DateOnly), "--days", "2")
	contains(t, out, `SITE +CHANNEL`, `osaka +package +1 +.*22:00`, `lisbon +package +1 +.*01:30`)
	out = x.table("plan", "--site", "lisbon", "--channel", "package", "--at", spring.Add(-time.Hour).Format(time.RFC3339))
	contains(t, out, `lisbon +package +1 +`+spring.Format("01-02")+` 02:00 WEST +02:00`)
	for _, line := range x.lines("plan", "--channel", "package", "--days", "1") {
		if line["site"] != "osaka" && line["site"] != "lisbon" || line["start"] == nil && line["release"].(float64) > 0 {
			t.Errorf("%v", line)
		}
	}
	x.must("halt", "--site", "osaka", "--reason", "maintenance")
	out = x.must("plan", "--channel", "package", "--days", "2")
	contains(t, out, `osaka +package +1 +halted +- +- +- +3\.0 MiB`, `osaka +package +next +halted +- +- +- +~3\.0 MiB`, `about [0-9.]+ MiB to move`, `[0-9.]+ MiB moves only when its halt is lifted`)
	x.must("resume", "--all")
	contains(t, x.fails(2, "plan", "--at", "tomorrow"), "--at", "2026-01-31")
	x.fails(2, "plan", "--days", "0")
	contains(t, x.fails(14, "plan", "--site", "osako"), "osako")
	x.fails(14, "limit", "--region", "atlantis", "5Mbit")

	contains(t, x.fails(2, "limit", "5Mbit"), "--all")
	contains(t, x.fails(2, "limit", "--all", "5Mb"), "Mbit")
	contains(t, x.fails(2, "limit", "--all", "5Mbit", "--off"), "--off")
	contains(t, x.fails(2, "limit", "--all", "5Mbit", "--for", "ever"), "--for")
	contains(t, x.table("limit", "--site", "osaka", "06:00-20:00 0; else 20Mbit", "--for", "2h"), `osaka +06:00-20:00 0; else 20Mbit `, `when it comes back`)
	contains(t, x.table("limit", "--all", "0"), `osaka +0 `, `lisbon +0 `)
	contains(t, x.table("limit", "--all", "--off"), `osaka +unlimited`, `lisbon +unlimited`)
	contains(t, x.table("limit", "--site", "osaka", "5Mbit"), `osaka +5Mbit `)
	contains(t, x.must("audit"), `limit +site osaka +5Mbit`)
	if all := x.lines("limit", "--site", "osaka", "8Mbit"); len(all) != 1 || all[0]["event"] != "limit" || all[0]["site"] != "osaka" {
		t.Errorf("%v", all)
	}
}

func TestShownLimit(t *testing.T) {
	for table, want := range map[string]string{
		"else 5Mbit": "5Mbit", "else 625000B": "5Mbit", "else 2.5MB": "2.5MB", "else 524288B": "512KiB",
		"06:00-20:00 0; else 64000B": "06:00-20:00 0; else 512kbit", "else unlimited": "unlimited", "else 7B": "7B",
	} {
		if got := shownLimit(table); got != want {
			t.Errorf("%q: got %q, want %q", table, got, want)
		}
	}
}

// lastSundayOfMarch is midnight in UTC before Europe's clocks change, which they
// do an hour later.
func lastSundayOfMarch(year int) time.Time {
	day := time.Date(year, 3, 31, 0, 0, 0, 0, time.UTC)
	for day.Weekday() != time.Sunday {
		day = day.AddDate(0, 0, -1)
	}
	return day
}
