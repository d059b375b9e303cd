// Package consoletest is a fleet of made-up facts, for the tests of the console: sites on five continents, of which some
// run, wait, fail, are away or halted. It decides nothing, and records the deeds that reach it.
package consoletest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
)

// World is the fleet. The exported fields may be changed before it is used.
type World struct {
	// The methods of these interfaces that World does not have panic: no page may need them.
	api.Alerts
	api.Members
	api.Secrets
	api.Process

	Tree        digest.Digest // of every source
	SiteList    []query.SiteStatus
	RunList     []ledger.Run // the newest first
	Files       []record.File
	Items       []query.PlanItem
	Openings    []query.Opening
	IncidentLog []query.Incident
	HaltList    []core.HaltView
	Audits      []ledger.Deed
	Releases    []ledger.Release

	mu    sync.Mutex
	at    time.Time
	deeds []string
	added chan struct{}
}

// Now is the time of New's world: the sun stands above the Atlantic, and it is night in Asia and Oceania.
var Now = time.Date(2026, 11, 30, 16, 20, 0, 0, time.UTC)

// id returns an identifier of a run.
func id(n int) (out ledger.RunID) {
	d := digest.Of(fmt.Append(nil, n))
	copy(out[:], d[:])
	return out
}

// New returns a fleet of 26 sites with two channels each.
func New() *World {
	w := &World{at: Now, added: make(chan struct{}, 1), Tree: digest.Of([]byte("source"))}
	for i, ch := range []struct {
		name  string
		files int64
		bytes int64
	}{{"driver", 18_240, 6 << 30}, {"package", 1_912, 41 << 30}} {
		for n := trust.ReleaseNumber(12 + i); n > 9; n-- {
			w.Releases = append(w.Releases, ledger.Release{Channel: ch.name, Number: n, Parent: n - 1, Digest: trust.ReleaseDigest(digest.Of(fmt.Append(nil, ch.name, n))), Tree: digest.Of(fmt.Append(nil, n)),
				Files: ch.files + int64(n), Bytes: ch.bytes, Published: Now.Add(-time.Duration(6+24*(12+i-int(n))) * time.Hour), Run: id(9000 + i*100 + int(n))})
		}
	}
	for i, l := range strings.Split(strings.TrimSpace(sites), "\n") {
		f := strings.Fields(l)
		w.addSite(i, f[0], f[1], f[2], f[3], f[4])
	}
	w.addTroubles()
	slices.SortStableFunc(w.RunList, func(a, b ledger.Run) int { return b.Started.Compare(a.Started) })
	for i, d := range [][4]string{{"anna", "sync", "site sydney", "package, now"}, {"token report", "refused", "halt region emea", "token report has the role viewer, and needs operator"}, {"ben", "halt", "site lima", "disk swap by the local team"}, {"schedule", "publish", "package", "release 13"}} {
		w.Audits = append(w.Audits, ledger.Deed{ID: int64(400 - i), At: Now.Add(-time.Duration(i*i+1) * 25 * time.Minute), Who: d[0], What: d[1], Object: d[2], Detail: d[3]})
	}
	return w
}

// sites are name, domain, region, zone and state.
const sites = `
amsterdam corp emea Europe/Amsterdam current
auckland corp ap Pacific/Auckland current
bangalore plant ap Asia/Kolkata running
berlin corp emea Europe/Berlin waiting
bogota plant amer America/Bogota waiting
cape-town plant emea Africa/Johannesburg current
chicago corp amer America/Chicago waiting
dublin corp emea Europe/Dublin current
hamburg plant emea Europe/Berlin waiting
jakarta plant ap Asia/Jakarta running
lagos corp emea Africa/Lagos away
lima plant amer America/Lima halted
london corp emea Europe/London waiting
manila plant ap Asia/Manila running
melbourne corp ap Australia/Melbourne current
mexico-city corp amer America/Mexico_City waiting
milano plant emea Europe/Rome failing
nairobi plant emea Africa/Nairobi current
new-york corp amer America/New_York waiting
osaka plant ap Asia/Tokyo current
perth corp ap Australia/Perth running
san-francisco corp amer America/Los_Angeles current
sao-paulo corp amer America/Sao_Paulo waiting
singapore corp ap Asia/Singapore different
sydney corp ap Australia/Sydney due
warsaw plant emea Europe/Warsaw waiting
`

var coordinates = map[string][2]float64{"osaka": {34.69, 135.5}, "bangalore": {12.97, 77.59}, "san-francisco": {37.77, -122.42}, "milano": {45.46, 9.19}, "hamburg": {53.55, 9.99}}

func (w *World) addSite(i int, name, domain, region, zone, state string) {
	s := query.SiteStatus{Site: name, Domain: domain, Region: region, Zone: zone, Enrolled: Now.AddDate(0, -2, 0), JWTExpires: Now.AddDate(0, 1, 0), Connected: state != "away",
		Seen: Now.Add(-time.Duration(i%50) * time.Second), Version: "1.0.0", ClockOffset: ledger.Seconds(time.Duration(i%4) * 120 * time.Millisecond), Revision: 88, Wanted: 88}
	if at, ok := coordinates[name]; ok {
		s.Latitude, s.Longitude = &at[0], &at[1]
	}
	if state == "away" {
		s.Seen = Now.Add(-5 * time.Hour)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		panic(err) // the zones are constants
	}
	today := Now.In(location)
	opens := time.Date(today.Year(), today.Month(), today.Day(), 20, 0, 0, 0, location)
	for k, ch := range []string{"driver", "package"} {
		newest := w.newest(ch)
		c := query.ChannelStatus{Channel: ch, Target: "/srv/" + ch, Wants: newest.Number, Holds: newest.Number, Since: Now.Add(-30 * time.Hour), Verified: Now.Add(-30 * time.Hour), State: query.Current, Run: id(i*10 + k).String(), LastEnd: "verified"}
		if k == 1 && state != query.Current {
			c.State, c.Why, c.Holds = state, whys[state], newest.Number-1
			if state != query.Running {
				c.Reasons = []query.Reason{{Domain: domain, Site: name, Channel: ch, What: whys[state], Since: Now.Add(-2 * time.Hour), Cause: "see the run", Remedy: command[state]}}
			}
		}
		for d := -2; d <= 1; d++ {
			from := opens.AddDate(0, 0, d)
			w.Openings = append(w.Openings, query.Opening{Site: name, Domain: domain, Region: region, Channel: ch, Start: from, End: from.Add(9 * time.Hour)})
			began := from.Add(time.Duration(7*i%60+90*k) * time.Minute)
			took := time.Duration(35+(i*13)%80) * time.Minute
			run := ledger.Run{ID: id(1000 + i*100 + k*10 + d), Domain: domain, Site: name, Channel: ch, Number: newest.Number, Parent: newest.Number - 1, Trigger: "window", Started: began, Finished: began.Add(took), State: runs.Verified,
				Release: newest.Digest, Tree: newest.Tree, Totals: runs.Totals{Files: newest.Files, Bytes: newest.Bytes, Fetched: 1 << 30, Held: 5 << 30, Wire: 700 << 20}}
			run.Totals.Added, run.Totals.Changed, run.Totals.Unchanged = 12, 240, newest.Files-252
			switch {
			case state == query.Running && k == 1 && began.Before(Now) && began.Add(5*time.Hour).After(Now):
				run.Finished, run.State, c.Run = time.Time{}, "", run.ID.String()
				done := int64(20+i*3%70) << 30 / 2
				c.Progress = &runs.Progress{Phase: "fetch", FilesDone: 400 + int64(i), FilesTotal: newest.Files, BytesDone: done, BytesTotal: newest.Bytes, BytesWire: done / 2}
				w.RunList = append(w.RunList, run)
			case run.Finished.Before(Now):
				if (i+d+k)%9 == 0 {
					run.State, run.Cause = runs.Stopped, "the window ended"
				}
				if state == "failing" && k == 1 {
					run.State, run.Cause = runs.Incomplete, "3 files are locked by another program"
				}
				w.RunList = append(w.RunList, run)
			case began.After(Now) && state != query.Current && state != query.Running && k == 1 && began.Before(Now.AddDate(0, 0, 1)):
				w.Items = append(w.Items, query.PlanItem{Site: name, Domain: domain, Region: region, Channel: ch, Release: newest.Number, Zone: zone, Ready: Now, Start: began, End: began.Add(2 * took), Active: ledger.Seconds(2 * took),
					Nights: 1, Tonight: true, Halted: state == "halted", Bytes: 3 << 30, Requests: 200, Cost: 0.27})
			}
		}
		if c.State == query.Running && c.Progress == nil {
			run := ledger.Run{ID: id(5000 + i), Domain: domain, Site: name, Channel: ch, Number: newest.Number, Parent: newest.Number - 1, Trigger: "window", Started: Now.Add(-time.Duration(20+i) * time.Minute), Release: newest.Digest, Tree: newest.Tree}
			done := int64(5+i) << 30
			c.Run, c.Progress = run.ID.String(), &runs.Progress{Phase: "fetch", FilesDone: 400 + int64(i), FilesTotal: newest.Files, BytesDone: done, BytesTotal: newest.Bytes, BytesWire: done / 2}
			w.RunList = append(w.RunList, run)
		}
		s.Channels = append(s.Channels, c)
	}
	w.SiteList = append(w.SiteList, s)
}

var whys = map[string]string{"waiting": "window 11-30 20:00", "due": "due", "failing": "last run incomplete", "away": "no message for 5 h", "halted": "halted by order 3f9a21", "different": "files differ"}

var command = map[string]string{"waiting": "wait, or: nightferry sync --now", "due": "wait", "failing": "close the program that has the files open", "away": "start the agent: systemctl start nightferry-agent",
	"halted": "nightferry resume 3f9a21", "different": "nightferry verify --repair"}

func (w *World) newest(channel string) ledger.Release {
	for _, r := range w.Releases {
		if r.Channel == channel {
			return r
		}
	}
	return ledger.Release{}
}

func (w *World) addTroubles() {
	member := func(domain, site, text string, ago time.Duration, n int64) ledger.Member {
		return ledger.Member{Domain: domain, Site: site, Text: text, First: Now.Add(-ago), Last: Now.Add(-ago / 10), Count: n}
	}
	w.IncidentLog = []query.Incident{
		{Incident: ledger.Incident{ID: 31, Key: "site-locked/package", Kind: "site-locked", Scope: "package", Text: "3 files are locked by another program", Opened: Now.Add(-26 * time.Hour), Last: Now.Add(-20 * time.Minute), Count: 7,
			Members: []ledger.Member{member("plant", "milano", "drivers/net/rtl8168.sys is in use by scanner.exe", 26*time.Hour, 6), member("plant", "hamburg", "tools/setup.exe is in use", 3*time.Hour, 1)}}, Remedy: "Close the program that has the files open, or set locked: partial for the channel. The run is tried again by itself."},
		{Incident: ledger.Incident{ID: 30, Key: "away/lagos", Kind: "away", Scope: "lagos", Text: "no message from the site for 5 minutes", Opened: Now.Add(-5 * time.Hour), Last: Now.Add(-5 * time.Hour), Count: 1, Acked: "ben: power cut in the building, back tomorrow",
			Members: []ledger.Member{member("corp", "lagos", "no message since 11:20 UTC", 5*time.Hour, 1)}}, Remedy: "Check the machine, its network and the agent: nightferry-agent status."},
	}
	all := core.HaltView{Halt: ledger.Halt{Order: halt.ID{0x3f, 0x9a, 0x21}, Scope: halt.Site, Value: "lima", Reason: "disk swap by the local team", By: "ben", At: Now.Add(-4 * time.Hour)}}
	all.Sites = []core.HaltSite{{Domain: "plant", Site: "lima", Enrolled: true, Connected: true, Stopped: Now.Add(-4*time.Hour + 380*time.Millisecond), BytesAfter: 131_072}}
	all.Confirmed = []ledger.Stop{{Domain: "plant", Site: "lima", Stopped: all.Sites[0].Stopped, BytesAfter: 131_072}}
	w.HaltList = []core.HaltView{all}
	w.Files = []record.File{
		{Path: "drivers/net/rtl8168.sys", Outcome: runs.FileLocked, Size: 81_920, Cause: "in use by scanner.exe", At: Now},
		{Path: "tools/setup.exe", Outcome: runs.FileAdded, Size: 50 << 20, Fetched: 50 << 20, SHA256: digest.Of([]byte("x")).String(), At: Now},
		{Path: "readme.txt", Outcome: runs.FileChanged, Size: 812, Fetched: 812, SHA256: digest.Of([]byte("y")).String(), At: Now},
	}
}

// Hostile returns a world in which every text is made to deceive.
func Hostile() *World {
	w := New()
	for i := range w.SiteList {
		s := &w.SiteList[i]
		text := Texts[i%len(Texts)]
		old := s.Site
		s.Site = fmt.Sprintf("%s%d", text, i)
		s.Version, s.Contested, s.RevokedWhy = text, text, text
		for k := range s.Channels {
			c := &s.Channels[k]
			c.Why, c.LastWhy, c.Target = text, text, text
			c.Reasons = []query.Reason{{Site: s.Site, What: text, Cause: text, Remedy: text}}
		}
		for k := range w.RunList {
			if r := &w.RunList[k]; r.Site == old {
				r.Site, r.Cause, r.Trigger = s.Site, text, text
			}
		}
		for k := range w.Openings {
			if w.Openings[k].Site == old {
				w.Openings[k].Site = s.Site
			}
		}
		for k := range w.Items {
			if w.Items[k].Site == old {
				w.Items[k].Site, w.Items[k].Blocked = s.Site, text
			}
		}
	}
	for i := range w.IncidentLog {
		x := &w.IncidentLog[i]
		x.Text, x.Key, x.Acked, x.Remedy = Texts[i], Texts[i], Texts[i], Texts[i]
		for k := range x.Members {
			x.Members[k].Text, x.Members[k].Site = Texts[k], Texts[k]
		}
	}
	for i := range w.HaltList {
		w.HaltList[i].Reason, w.HaltList[i].By, w.HaltList[i].Value = Texts[0], Texts[1], Texts[2]
	}
	for i := range w.Audits {
		w.Audits[i].Who, w.Audits[i].Object, w.Audits[i].Detail = Texts[i], Texts[i], Texts[i]
	}
	for _, text := range Texts {
		w.Files = append(w.Files, record.File{Path: text, Outcome: runs.FileFailed, Cause: text, From: text})
	}
	return w
}

// Texts are hostile names of sites, files and people, and hostile reasons.
var Texts = []string{
	`<script>alert(1)</script>`,
	`"><img src=x onerror=alert(1)>`,
	"\u202egnp.exe\u2066\u200f",
	"a\r\nSet-Cookie: x=1\r\n\r\n<b>",
	"\x1b[2J\x1b]0;x\x07\x00",
	strings.Repeat("🚢", 255),
	strings.Repeat("W", 255),
	"Z" + strings.Repeat("\u0335\u0489\u036f", 80),
	`javascript:alert(1)//{{.}}`,
	"=HYPERLINK(\"http://x\")",
	"' onmouseover='alert(1)",
	"../../../etc/passwd?x=1&y=2#z%00",
}

// Deeds returns the changes that were made.
func (w *World) Deeds() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.deeds)
}

func (w *World) did(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deeds = append(w.deeds, fmt.Sprintf(format, args...))
}

// Backend returns the world as the console wants it.
func (w *World) Backend() api.Backend {
	v := view{w}
	return api.Backend{Fleet: v, Records: v, LogFiles: v, Forecast: v, Incidents: v, Alerts: w, Halts: halts{w}, Orders: v, Publisher: v, Members: w, Secrets: w, Process: w,
		Events: events{w}, Tokens: tokens{w}, Console: v, Rights: v, Now: w.now}
}

// ctx is the context of a call.
type ctx = context.Context
