package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var dawn = time.Date(2026, 3, 27, 6, 0, 0, 0, time.UTC)

// desk holds a State that is stored and read again between any two steps, like
// a Core that restarts after every step.
type desk struct {
	t     *testing.T
	state State
	rules Rules
	list  []Incident // the newest first
	mails []Message  // delivered
	down  bool
}

func newDesk(t *testing.T) *desk {
	return &desk{t: t, rules: Rules{
		Mail: true, To: []string{"ops@x"}, Domains: map[string][]string{"apac": {"apac@x"}},
		Regions: map[string]Region{"ap": {To: []string{"ap@x"}, Report: Daily{7, 0, time.UTC}}, "emea": {}},
	}}
}

func (d *desk) at(now time.Time) []Message {
	d.t.Helper()
	b, err := json.Marshal(&d.state)
	if err != nil {
		d.t.Fatal(err)
	}
	d.state = State{}
	if err := json.Unmarshal(b, &d.state); err != nil {
		d.t.Fatal(err)
	}
	d.state.Retarget(&d.rules)
	d.state.Update(now, &d.rules, d.list)
	var sent []Message
	for _, l := range d.state.Messages(now, &d.rules) {
		if f := d.state.Failing[l.To]; f != nil && !f.Due(now) {
			continue
		}
		if d.down {
			d.state.Failed(now, l.To, errors.New("connection refused"))
			continue
		}
		d.state.Delivered(&l)
		sent = append(sent, l)
	}
	d.mails = append(d.mails, sent...)
	return sent
}

func (d *desk) open(id int64, kind string, at time.Time, sites ...string) {
	i := Incident{ID: id, Key: kind, Kind: kind, Text: kind + " text", Opened: at, Last: at, Count: 1}
	for _, s := range sites {
		i.Members = append(i.Members, member(s, at))
	}
	d.list = append([]Incident{i}, d.list...)
}

// member makes a site of apac; names that begin with e are in emea.
func member(site string, at time.Time) Member {
	m := Member{Domain: "apac", Region: "ap", Site: site, Text: "it is " + site, First: at}
	if strings.HasPrefix(site, "e") {
		m.Domain, m.Region = "emea", "emea"
	}
	return m
}

func (d *desk) resolve(id int64, at time.Time) {
	for i := range d.list {
		if d.list[i].ID == id {
			d.list[i].Resolved = at
			for k := range d.list[i].Members {
				d.list[i].Members[k].Left = at
			}
		}
	}
}

func words(list []Message) []string {
	var out []string
	for _, l := range list {
		var kinds []string
		for _, n := range l.Notices {
			kinds = append(kinds, n.Kind)
		}
		out = append(out, l.To+" "+strings.Join(kinds, "+"))
	}
	return out
}

func (d *desk) want(got []Message, want ...string) {
	d.t.Helper()
	if w := words(got); !slices.Equal(w, want) {
		d.t.Errorf("sent %q, want %q", w, want)
	}
}

// TestLife: 70 sites with one cause produce one mail per recipient, then one
// reminder a day, one mail when sites join, and one at the end.
func TestLife(t *testing.T) {
	d := newDesk(t)
	var sites []string
	for i := range 70 {
		sites = append(sites, fmt.Sprintf("s%02d", i))
	}
	d.open(1, "silent", dawn, sites[:1]...)
	d.want(d.at(dawn.Add(10 * time.Second))) // the others are about to come
	for _, s := range sites[1:] {
		d.list[0].Members = append(d.list[0].Members, member(s, dawn.Add(20*time.Second)))
	}
	got := d.at(dawn.Add(time.Minute))
	d.want(got, "ap@x opened", "apac@x opened", "ops@x opened")
	subject, text, html, err := Render(&got[2])
	if err != nil || !strings.Contains(subject, "70 sites") {
		t.Errorf("subject %q, %v", subject, err)
	}
	for _, s := range sites {
		if !strings.Contains(text, "- "+s+" ") || !strings.Contains(html, "<li>"+s+" ") {
			t.Errorf("site %s is not named", s)
		}
	}
	d.want(d.at(dawn.Add(2 * time.Minute)))
	d.list[0].Members[3].Left = dawn.Add(3 * time.Minute) // one joins again, and leaves again
	d.want(d.at(dawn.Add(3 * time.Hour)))
	d.list[0].Members[3].Left = time.Time{}
	d.want(d.at(dawn.Add(4 * time.Hour)))
	d.list[0].Members = append(d.list[0].Members, member("one more", dawn.Add(5*time.Hour)))
	d.want(d.at(dawn.Add(5*time.Hour)), "ap@x grown", "apac@x grown", "ops@x grown")
	for day := 1; day <= 3; day++ {
		for h := range 24 { // checked often, sent once
			d.at(dawn.Add(5*time.Hour + time.Duration(day)*24*time.Hour + time.Duration(h)*time.Hour))
		}
	}
	d.want(d.mails[6:], slices.Repeat([]string{"ap@x reminder", "apac@x reminder", "ops@x reminder"}, 3)...)
	end := dawn.Add(5 * 24 * time.Hour)
	d.resolve(1, end)
	d.want(d.at(end), "ap@x resolved", "apac@x resolved", "ops@x resolved")
	d.want(d.at(end.Add(48 * time.Hour)))
}

// TestWho: a domain's recipients get notices about their own sites only.
// Incidents of the Core itself go to the recipients of everything.
func TestWho(t *testing.T) {
	d := newDesk(t)
	d.open(1, "silent", dawn, "essen", "osaka")
	d.open(2, "clock", dawn, "essen")
	d.open(3, "store", dawn)
	d.list[0].Members = []Member{{Text: "store text", First: dawn}}
	d.open(4, "mail", dawn, "osaka") // a mail about failing mail is useless
	got := d.at(dawn.Add(time.Hour))
	d.want(got, "ap@x opened", "apac@x opened", "ops@x opened", "ops@x opened", "ops@x opened")
	for _, l := range got[:2] {
		subject, text, html, _ := Render(&l)
		if all := subject + text + html; strings.Contains(all, "essen") || !strings.Contains(all, "osaka") {
			t.Errorf("%s reads\n%s", l.To, all)
		}
	}
}

// TestWhoseSitesCameAndWent: a recipient whose sites have all left an incident
// gets no more reminders. The recipient gets a notice of more sites only if one
// of their own has joined. The daily growth of the incident elsewhere does not
// delay reminders.
func TestWhoseSitesCameAndWent(t *testing.T) {
	d := newDesk(t)
	join := func(site string, after time.Duration) []Message {
		t.Helper()
		d.list[0].Members = append(d.list[0].Members, member(site, dawn.Add(after)))
		return d.at(dawn.Add(after))
	}
	d.open(1, "silent", dawn, "osaka")
	d.want(d.at(dawn.Add(time.Minute)), "ap@x opened", "apac@x opened", "ops@x opened")
	d.want(join("essen", 3*time.Hour), "ops@x grown")
	d.want(join("kobe", 3*time.Hour+10*time.Minute)) // too soon for any mail
	d.want(d.at(dawn.Add(4*time.Hour)), "ap@x grown", "apac@x grown", "ops@x grown")
	d.want(join("emden", 23*time.Hour), "ops@x grown")
	d.want(d.at(dawn.Add(25*time.Hour)), "ap@x reminder", "apac@x reminder", "ops@x reminder")
	for _, i := range []int{0, 2} { // osaka and kobe are back
		d.list[0].Members[i].Left = dawn.Add(26 * time.Hour)
	}
	d.want(d.at(dawn.Add(50*time.Hour)), "ops@x reminder")
	d.want(join("erfurt", 52*time.Hour), "ops@x grown")
	d.resolve(1, dawn.Add(53*time.Hour))
	d.want(d.at(dawn.Add(53*time.Hour)), "ap@x resolved", "apac@x resolved", "ops@x resolved")
}

// TestOutage: incidents that opened and ended while the mail server was away
// are reported once, in one message, and nothing is lost.
func TestOutage(t *testing.T) {
	d := newDesk(t)
	d.down = true
	now := dawn
	for id := int64(1); id <= 30; id++ {
		d.open(id, fmt.Sprintf("kind%02d", id), now, "osaka")
		d.at(now.Add(2 * time.Minute))
		if id%3 != 0 {
			d.resolve(id, now.Add(20*time.Minute))
		}
		now = now.Add(48 * time.Minute) // a day in all
		d.at(now)
	}
	now = now.Add(24 * time.Hour)
	d.at(now) // including reminders
	if n := d.state.Failing["ops@x"].Times; n < 10 || n > 100 {
		t.Errorf("%d tries in two days", n)
	}
	d.down = false
	now = now.Add(time.Hour)
	got := d.at(now)
	if len(got) != 3 {
		t.Fatalf("%d messages, want one for each recipient: %q", len(got), words(got))
	}
	_, text, _, err := Render(&got[2])
	for id := 1; id <= 30; id++ {
		word := "over: "
		if id%3 == 0 {
			word = "new: "
		}
		title := fmt.Sprintf("kind%02d at osaka\n", id)
		if n := strings.Count(text, title); err != nil || n != 1 || !strings.Contains(text, word+title) {
			t.Errorf("%q is told %d times, want once as %q (%v)", title, n, word, err)
		}
	}
	d.want(d.at(now.Add(time.Hour)))
}

// TestHostileNames: text from a site cannot end a header or a tag.
func TestHostileNames(t *testing.T) {
	d := newDesk(t)
	evil := "x\r\nBcc: thief@x\r\n\r\n<script>alert(1)</script>\u202e"
	d.open(1, evil, dawn, "osaka")
	d.list[0].Text, d.list[0].Members[0].Text, d.list[0].Members[0].Site = evil, evil, evil
	got := d.at(dawn.Add(time.Hour))
	subject, text, html, err := Render(&got[0])
	if err != nil || strings.ContainsAny(subject, "\r\n\u202e") || strings.Contains(text, "\nBcc") || strings.Contains(text, "\r") || strings.Contains(html, "<script>") || strings.Contains(html, "\u202e") {
		t.Errorf("%v\n%q\n%s\n%s", err, subject, text, html)
	}
}

// TestOld: incidents that ended before the first look are not reported. Those
// that opened and ended between two looks are. An incident that the ledger no
// longer has counts as ended.
func TestOld(t *testing.T) {
	d := newDesk(t)
	d.open(1, "old", dawn, "osaka")
	d.resolve(1, dawn)
	d.open(2, "store", dawn, "osaka")
	d.want(d.at(dawn.Add(time.Hour)), "ap@x opened", "apac@x opened", "ops@x opened")
	d.open(3, "brief", dawn.Add(time.Hour), "essen")
	d.resolve(3, dawn.Add(time.Hour))
	d.want(d.at(dawn.Add(2*time.Hour)), "ops@x resolved")
	d.list = d.list[:1]
	d.want(d.at(dawn.Add(3*time.Hour)), "ap@x resolved", "apac@x resolved", "ops@x resolved")
	d.rules.Regions["ap"] = Region{}
	d.open(4, "disk", dawn.Add(3*time.Hour), "osaka")
	d.down = true
	d.at(dawn.Add(5 * time.Hour))
	d.down, d.rules.Domains = false, nil // a reload takes them away
	d.want(d.at(dawn.Add(6*time.Hour)), "ops@x opened")
	if len(d.state.Queue) != 0 || len(d.state.Failing) != 0 {
		t.Errorf("left: %+v", d.state)
	}
}

// TestBrief: an incident that opens and ends while an older one waits for its
// sites is reported once. So is the older one, whether it stays open or ends
// before it was reported. This holds from the first look on, and after the
// clock was set back.
func TestBrief(t *testing.T) {
	d := newDesk(t)
	second := func(n int) time.Time { return dawn.Add(time.Duration(n) * time.Second) }
	look := func(from, to int) (sent []Message) {
		t.Helper()
		for n := from; n <= to; n += 15 { // as often as a Core checks
			sent = append(sent, d.at(second(n))...)
		}
		return sent
	}
	d.want(look(0, 0))
	d.open(1, "token", second(0), "essen")
	d.open(2, "publish", second(5), "essen")
	d.resolve(2, second(6))
	d.want(look(10, 100), "ops@x resolved", "ops@x opened")

	d.open(3, "token", second(110), "essen")
	d.open(4, "publish", second(112), "essen")
	d.resolve(4, second(113))
	d.want(look(115, 145), "ops@x resolved")
	d.resolve(3, second(150)) // not reported yet
	d.want(look(160, 400), "ops@x resolved")

	d.open(5, "token", second(460), "essen")
	d.open(6, "publish", second(330), "essen") // the clock went back
	d.want(look(405, 420), "ops@x opened")
	d.resolve(6, second(430))
	d.want(look(435, 600), "ops@x resolved", "ops@x opened")
	if d.state.Mark != 6 || len(d.state.Over) != 0 {
		t.Errorf("at last %+v", d.state)
	}

	d.state = State{} // a new State, before its first look
	d.open(7, "token", second(605), "essen")
	d.open(8, "publish", second(606), "essen")
	d.resolve(8, second(607))
	d.resolve(5, second(607))
	d.resolve(1, second(607))
	d.want(look(610, 640))
	d.resolve(7, second(645))
	d.want(look(650, 800), "ops@x resolved")
}

// TestLost: after the State was lost, all open incidents are reported, and
// those that ended within a day, whichever opened first; no others.
func TestLost(t *testing.T) {
	d := newDesk(t)
	for id := int64(1); id <= 5; id++ {
		d.open(id, fmt.Sprint("kind", id), dawn.Add(-100*time.Hour), "essen")
	}
	d.resolve(1, dawn.Add(-time.Hour))
	d.resolve(3, dawn.Add(-25*time.Hour))
	d.resolve(5, dawn.Add(-99*time.Hour))
	d.state = Lost(dawn)
	got := d.at(dawn)
	d.want(got, "ops@x resolved", "ops@x opened", "ops@x opened")
	for i, kind := range []string{"kind1", "kind2", "kind4"} {
		if got[i].Notices[0].Incident.Kind != kind {
			t.Errorf("%s is told, want %s", got[i].Notices[0].Incident.Kind, kind)
		}
	}
	d.want(d.at(dawn.Add(time.Hour)))
}

// TestReport: each region's report is sent once a day at its own wall-clock
// time, even if the clock jumps over it, and its text is right.
func TestReport(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	d.rules.Regions["emea"] = Region{Report: Daily{2, 30, berlin}} // skipped on 2026-03-29
	var got []string
	for now := dawn; now.Before(dawn.Add(4 * 24 * time.Hour)); now = now.Add(10 * time.Minute) {
		for _, region := range d.state.ReportsDue(now, &d.rules) {
			d.state.AddReport(now, &d.rules, Report{Region: region, From: now.Add(-24 * time.Hour), Until: now,
				Sites:    []SiteLine{{Domain: "apac", Site: "osaka", Runs: 2, Files: 40, Bytes: 1_500_000, Channels: 2, Verified: 1}},
				Missed:   []Missed{{Site: "osaka", Channel: "image", At: now, State: "incomplete", Cause: "the window ended"}},
				Forecast: []Coming{{Site: "osaka", Channel: "image", Release: 7, Bytes: 2_000_000, Start: now, Nights: 3}}})
			got = append(got, region+now.Format(" 02 15:04"))
		}
	}
	want := []string{"emea 27 06:00", "ap 27 07:00", "emea 28 01:30", "ap 28 07:00", "emea 29 01:30", "ap 29 07:00", "emea 30 00:30", "ap 30 07:00", "emea 31 00:30"}
	if !slices.Equal(got, want) {
		t.Errorf("reports at %q, want %q", got, want)
	}
	if due := d.state.ReportsDue(time.Date(2026, 4, 1, 20, 0, 0, 0, time.UTC), &d.rules); len(due) != 0 {
		t.Errorf("in the evening, the morning of %q is told", due)
	}
	messages := d.at(dawn.Add(4 * 24 * time.Hour))
	d.want(messages[:4], "ap@x report", "ap@x report", "ap@x report", "ap@x report") // and none of emea
	subject, text, html, err := Render(&messages[0])
	if subject != "[nightferry] ap: 1 of 2 verified, 1 missed" || err != nil {
		t.Errorf("subject %q, %v", subject, err)
	}
	for _, part := range []string{"40 files, 1.5 MB over the network", "osaka, image", "incomplete: the window ended", "release 7, 2 MB: from 2026-03-27 07:00 UTC, and needs 3 nights"} {
		if !strings.Contains(strings.ReplaceAll(text, "\n  ", " "), part) || !strings.Contains(html, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

// TestLateReport: a report that was due while the Core was down is sent within
// half a day, also after midnight, and once. It does not displace the next one.
func TestLateReport(t *testing.T) {
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	d.rules.Regions = map[string]Region{"ap": {Report: Daily{20, 0, tokyo}}}
	eight := time.Date(2026, 3, 27, 20, 0, 0, 0, tokyo)
	for _, x := range []struct {
		at  time.Duration // after eight in the evening
		due bool
	}{
		{-7 * time.Hour, false}, // that of the day before, 17 hours ago
		{5 * time.Hour, true},   // the Core is back, at one in the morning
		{6 * time.Hour, false},
		{23*time.Hour + 59*time.Minute, false},
		{24 * time.Hour, true},
		{25 * time.Hour, false},
		{60 * time.Hour, true}, // it was away again, for half a day
		{84*time.Hour + time.Minute, false},
	} {
		now := eight.Add(x.at)
		due := d.state.ReportsDue(now, &d.rules)
		if (len(due) == 1) != x.due {
			t.Errorf("at %v, due is %q", now, due)
		}
		for _, region := range due {
			d.state.AddReport(now, &d.rules, Report{Region: region})
		}
	}
}

// TestFlood: many different incidents at once are one message.
func TestFlood(t *testing.T) {
	d := newDesk(t)
	for id := int64(1); id <= 50; id++ {
		d.open(id, fmt.Sprintf("kind%d", id), dawn, "essen")
	}
	got := d.at(dawn.Add(time.Hour))
	if len(got) != 1 || len(got[0].Notices) != 50 || got[0].Late {
		t.Errorf("sent %q", words(got))
	}
}

// TestClockWasAhead: times written under a clock that was a year ahead block
// neither notices nor reports afterwards.
func TestClockWasAhead(t *testing.T) {
	d, later := newDesk(t), dawn.AddDate(1, 0, 0)
	d.at(later)
	d.open(1, "a", later, "osaka")
	d.down = true
	d.at(later.Add(2 * settle)) // no recipient is reachable
	d.down = false
	d.state.AddReport(later.Add(time.Hour), &d.rules, Report{Region: "ap"})
	d.open(2, "b", later, "osaka")
	told := map[string]bool{}
	for _, l := range d.at(dawn.Add(2 * time.Hour)) {
		for _, n := range l.Notices {
			if n.Incident != nil {
				told[l.To+" "+n.Incident.Key] = true
			}
		}
	}
	for _, want := range []string{"ops@x a", "ops@x b", "ap@x b"} {
		if !told[want] {
			t.Errorf("%s is missing: %v", want, told)
		}
	}
	if due := d.state.ReportsDue(dawn.Add(2*time.Hour), &d.rules); !slices.Equal(due, []string{"ap"}) {
		t.Errorf("reports due: %v", due)
	}
}

// TestAcknowledgedIsNotReminded: an acknowledged incident produces no
// reminders, but a mail when it ends.
func TestAcknowledgedIsNotReminded(t *testing.T) {
	d := newDesk(t)
	d.at(dawn)
	d.open(1, "a", dawn, "osaka")
	d.at(dawn.Add(2 * settle))
	d.list[0].Acked = true
	if sent := d.at(dawn.Add(2 * remind)); len(sent) > 0 {
		t.Errorf("reminded: %+v", sent)
	}
	d.list[0].Resolved = dawn.Add(2 * remind)
	if sent := d.at(dawn.Add(2*remind + time.Hour)); len(sent) == 0 {
		t.Error("its end was not told")
	}
}

// TestSilentIncident: of a silent incident nothing is told, neither that it opened nor that it grew, nor one that has ended
// meanwhile. What lasts longer is told then. The end of one that was told before is told.
func TestSilentIncident(t *testing.T) {
	d := newDesk(t)
	d.at(dawn)
	d.open(1, "told", dawn, "osaka")
	d.at(dawn.Add(2 * settle))
	until := dawn.Add(3 * remind)
	d.open(2, "passing", dawn.Add(time.Hour), "osaka")
	d.open(3, "lasting", dawn.Add(time.Hour), "osaka")
	for n := range d.list {
		d.list[n].Silent = until
	}
	told := func(at time.Time) (out []string) {
		t.Helper()
		for _, l := range d.at(at) {
			for _, n := range l.Notices {
				if n.Incident != nil && l.To == "ops@x" {
					out = append(out, n.Kind+" "+n.Incident.Key)
				}
			}
		}
		return out
	}
	if got := told(dawn.Add(2 * remind)); len(got) > 0 {
		t.Errorf("told: %q", got)
	}
	d.resolve(1, dawn.Add(2*remind))
	d.resolve(2, dawn.Add(2*remind))
	if got := told(dawn.Add(2*remind + time.Hour)); !slices.Equal(got, []string{"resolved told"}) {
		t.Errorf("told: %q", got)
	}
	if got := told(until.Add(time.Minute)); !slices.Equal(got, []string{"opened lasting"}) {
		t.Errorf("told: %q", got)
	}
}

// TestHourlyMails: an incident that opens and closes all night, beside incidents of many kinds, does not become a mail each.
// Nothing is left out, and the first mails are not delayed.
func TestHourlyMails(t *testing.T) {
	d := newDesk(t)
	d.rules.Domains, d.rules.Regions = nil, nil
	at := dawn
	d.at(at)
	var sent []time.Time
	covered := map[int64]string{}
	step := func() {
		at = at.Add(time.Minute)
		for _, m := range d.at(at) {
			sent = append(sent, at)
			for _, n := range m.Notices {
				covered[n.Incident.ID] = n.Kind
			}
		}
	}
	for id := int64(1); id <= 240; id++ { // each is open for two of four minutes, or for good
		d.open(id, fmt.Sprintf("kind-%d", id%120), at, "a")
		step()
		step()
		if id%2 == 0 {
			d.resolve(id, at)
		}
		step()
		step()
		if id == 2 && len(sent) != 3 {
			t.Errorf("the first incidents gave %d mails: %v", len(sent), words(d.mails))
		}
	}
	for range 20 {
		step()
	}
	for id := int64(1); id <= 240; id++ {
		if want := map[bool]string{true: Resolved, false: Opened}[id%2 == 0]; covered[id] != want {
			t.Errorf("incident %d was last reported as %q", id, covered[id])
		}
	}
	for i := range sent {
		n := 0
		for _, at := range sent[i:] {
			if at.Sub(sent[i]) < time.Hour {
				n++
			}
		}
		if n > 16 {
			t.Fatalf("%d mails within an hour from %s", n, sent[i])
		}
	}
	// A clock that was ahead does not hold mails back.
	d.state.Sent["ops@x"] = append(d.state.Sent["ops@x"], at.Add(24*time.Hour))
	d.open(1000, "late", at, "a")
	for range 16 {
		step()
	}
	if covered[1000] != Opened {
		t.Error("a time ahead holds a mail back")
	}
}
