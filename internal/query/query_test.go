package query

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/nights"
	"nightferry/internal/policy"
	"nightferry/internal/record"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

var (
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	two  = ledger.Release{Channel: "package", Number: 2, Digest: trust.ReleaseDigest(digest.Of([]byte("2"))), Files: 5, Bytes: 64 << 20, Published: noon.Add(-time.Hour)}
)

// facts stand in for the ledger and the Core: one site, osaka, with one channel.
type facts struct {
	site   Site
	holds  []ledger.Holding
	finds  []ledger.Finding
	last   []ledger.Run
	halts  []halt.Order
	window string
	full   bool // the site's disk
	deeds  []ledger.Deed
	open   []ledger.Incident
}

func (f *facts) Runs(_ context.Context, r ledger.RunFilter) ([]ledger.Run, error) {
	if r.Open || r.State != "" {
		return nil, nil
	}
	return f.last, nil
}

func (f *facts) FindRuns(context.Context, string) ([]ledger.Run, error) { return f.last, nil }

func (f *facts) Release(context.Context, string, trust.ReleaseNumber) (ledger.Release, error) {
	return two, nil
}

func (f *facts) Holdings(context.Context, ledger.Filter) ([]ledger.Holding, error) {
	return f.holds, nil
}

func (f *facts) Findings(_ context.Context, _ ledger.Filter, states ...runs.State) (out []ledger.Finding, err error) {
	for _, x := range f.finds {
		if slices.Contains(states, cmp.Or(x.State, runs.Different)) {
			out = append(out, x)
		}
	}
	return out, nil
}

func (f *facts) FindingsOf(context.Context, string, string) ([]ledger.Finding, error) {
	return nil, nil
}

func (f *facts) Site(wire.Address) (Site, bool) { return f.site, true }

func (f *facts) Halted() int { return 0 }

func (f *facts) Has(kind kinds.Kind, _ string, _ wire.Address) bool {
	return f.full && kind == kinds.SiteSays+"-disk"
}

func (f *facts) List(context.Context, bool) ([]ledger.Incident, error) { return f.open, nil }

func (f *facts) Revision(context.Context) (uint64, error) { return 1, nil }

func (f *facts) Deeds(context.Context, ledger.DeedFilter) ([]ledger.Deed, error) { return f.deeds, nil }

func (f *facts) Exceptions(context.Context, ledger.Filter) ([]ledger.Exception, error) {
	return nil, nil
}

type newest struct{}

func (newest) Of(string) (ledger.Release, bool) { return two, true }
func (newest) List() []ledger.Release           { return []ledger.Release{two} }

type unmeasured struct{}

func (unmeasured) Of(context.Context, string, trust.ReleaseNumber) (ledger.Measurement, error) {
	return ledger.Measurement{}, ledger.ErrNotFound
}

func (f *facts) service(t *testing.T) *Service {
	t.Helper()
	fl := &fleet.Fleet{Channels: []fleet.Channel{{Name: "package"}}, Domains: []fleet.Domain{{Name: "apac"}}, Regions: []fleet.Region{{Name: "ap"}},
		Sites: []fleet.Site{{Name: "osaka", Domain: "apac", Region: "ap", Location: time.UTC, Zone: "UTC", Placements: []fleet.Placement{{Channel: "package", Policy: policy.Policy{Windows: f.window}}}}}}
	table, err := nights.Parse(fl)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{
		Runs: f, Proofs: f, Records: f, Measured: unmeasured{}, Incidents: f, Sites: f, Newest: newest{}, Releases: releases.New(nil, func() *repo.Repo { return nil }),
		World:  func() World { return World{Fleet: fl, Nights: table} },
		Wanted: func(wire.Address) Wanted { return Wanted{} },
		Halts:  func() *halt.Orders { return &halt.Orders{Active: f.halts} },
		Now:    func() time.Time { return noon }, Wall: func() time.Time { return noon },
	})
}

// TestStates: each fact about a site gives its channel one state and, unless it is
// current, a first reason with a remedy.
func TestStates(t *testing.T) {
	enrolled := Site{Connected: true, Seen: noon, Identity: &ledger.Identity{Enrolled: noon.Add(-time.Hour)}}
	one := []ledger.Holding{{Domain: "apac", Site: "osaka", Channel: "package", Number: 1, Verified: noon, Attested: noon}}
	proven := []ledger.Holding{{Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: two.Digest, Verified: noon, Attested: noon}}
	away, local, contested := enrolled, enrolled, enrolled
	away.Connected = false
	local.Halted = &wire.Stop{Reason: "disk swap", Heard: noon.UnixMilli()}
	contested.Identity = &ledger.Identity{Enrolled: noon, Contested: noon, Contest: "two machines"}
	run := func(s runs.State, number trust.ReleaseNumber) []ledger.Run {
		return []ledger.Run{{ID: ledger.RunID{1}, Domain: "apac", Site: "osaka", Channel: "package", Number: number, State: s, Started: noon.Add(-time.Minute), Finished: noon}}
	}
	found := func(s runs.State, cause string) []ledger.Finding {
		return []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", State: s, Cause: cause}}
	}
	waits := func(s Site, why string) Site {
		w := Waiting{Why: why}
		if why == "turn" {
			w.Text = "behind image"
		}
		s.Waits = map[string]Waiting{"package": w}
		return s
	}
	refused := away
	refused.Refused, refused.RefusedAt = "its key is not in force", noon
	lacking := slices.Clone(proven)
	lacking[0].Lacks = noon
	open := run("", 2)
	open[0].Finished = time.Time{}
	for name, c := range map[string]struct {
		facts
		state, why string
	}{
		"proven":           {facts{site: enrolled, holds: proven}, "current", ""},
		"not enrolled":     {facts{}, "never", "not enrolled"},
		"revoked":          {facts{holds: proven}, "unproven", "not enrolled"},
		"behind":           {facts{site: enrolled, holds: one}, "due", "due"},
		"window is closed": {facts{site: enrolled, holds: one, window: "22:00-04:00"}, "waiting", "window 03-02 22:00Z"},
		"no message":       {facts{site: away, holds: one}, "away", "no message"},
		"failed":           {facts{site: enrolled, holds: one, last: run(runs.Failed, 2)}, "failing", "last run failed"},
		"failed before":    {facts{site: enrolled, holds: one, last: run(runs.Failed, 1)}, "due", "due"},
		"running":          {facts{site: enrolled, holds: one, last: open}, "running", ""},
		"run retries":      {facts{site: waits(enrolled, "retry"), holds: one, last: open}, "failing", "retries"},
		"no space":         {facts{site: waits(enrolled, "space"), holds: one}, "failing", "no space"},
		"rate is 0":        {facts{site: waits(enrolled, "rate"), holds: one}, "waiting", "rate is 0"},
		"its turn":         {facts{site: waits(enrolled, "turn"), holds: one}, "due", "behind image"},
		"run, and away":    {facts{site: away, holds: one, last: open}, "away", "no message"},
		"lacks it":         {facts{site: enrolled, holds: lacking}, "never", "due"},
		"refused":          {facts{site: refused, holds: one}, "away", "refused"},
		"halted there":     {facts{site: local, holds: one}, "halted", "halted on the site"},
		"halted":           {facts{site: enrolled, holds: one, halts: []halt.Order{{ID: halt.NewID(), Scope: halt.Region, Value: "ap"}}}, "halted", "halted by order"},
		"two machines":     {facts{site: contested, holds: proven}, "contested", "contested"},
		"target emptied":   {facts{site: enrolled, holds: proven, finds: found(runs.Emptied, "no record")}, "unproven", "target emptied"},
		"target refused":   {facts{site: enrolled, holds: proven, finds: found(runs.Refused, "not allowed")}, "unproven", "target refused"},
		"target fails":     {facts{site: enrolled, holds: proven, finds: found(runs.Unreadable, "input/output error")}, "unproven", "target unreadable"},
		"could not bring":  {facts{site: enrolled, holds: proven, finds: found(runs.Incomplete, "")}, "unproven", "unproven"},
		"store was away":   {facts{site: enrolled, holds: proven, finds: found(runs.Failed, "no route to host")}, "current", ""},
		"differs":          {facts{site: enrolled, holds: proven, finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package"}}}, "different", "files differ"},
	} {
		list, err := c.service(t).Sites(t.Context(), fleet.Scope{})
		if err != nil || len(list) != 1 || len(list[0].Channels) != 1 {
			t.Fatalf("%s: %+v, %v", name, list, err)
		}
		ch := list[0].Channels[0]
		if ch.State != c.state || !strings.HasPrefix(ch.Why, c.why) || (c.why == "") != (ch.Why == "") {
			t.Errorf("%s: state %s, why %q; want %s, %q", name, ch.State, ch.Why, c.state, c.why)
		}
		if !slices.Contains(States(), ch.State) {
			t.Errorf("%s: %s is not in States", name, ch.State)
		}
		for _, r := range ch.Reasons {
			if r.Remedy == "" {
				t.Errorf("%s: %q has no remedy", name, r.What)
			}
		}
	}
}

// TestWhy: one cause is one entry, and no entry advises a step that another entry forbids.
func TestWhy(t *testing.T) {
	enrolled := Site{Connected: true, Seen: noon, Identity: &ledger.Identity{Enrolled: noon.Add(-time.Hour)}, Waits: map[string]Waiting{"package": {Why: "halted"}}}
	free := enrolled
	free.Waits = nil
	held := func(number trust.ReleaseNumber) []ledger.Holding {
		return []ledger.Holding{{Domain: "apac", Site: "osaka", Channel: "package", Number: number, Release: two.Digest, Verified: noon, Attested: noon}}
	}
	opened := func(key, text string) []ledger.Incident {
		kind, _ := kinds.CutKey(key)
		return []ledger.Incident{{Key: key, Kind: string(kind), Text: text, Members: []ledger.Member{{Domain: "apac", Site: "osaka", Text: text, First: noon}}}}
	}
	failed := []ledger.Run{{ID: ledger.RunID{1}, Domain: "apac", Site: "osaka", Channel: "package", Number: 2, State: runs.Incomplete, Started: noon.Add(-time.Minute), Finished: noon}}
	unowned, readonly := slices.Clone(failed), slices.Clone(failed)
	unowned[0].State, unowned[0].Cause = runs.Unowned, "ownership lost"
	readonly[0].State, readonly[0].Cause = runs.Failed, "read-only file system"
	halted := []halt.Order{{ID: halt.NewID(), Scope: halt.All, By: "anna", Reason: "maintenance", At: noon.Unix()}}
	revoked := []ledger.Deed{{At: noon, Who: "ben", Object: "site osaka", Detail: "key UABC: stolen"}, {At: noon, Who: "anna", Object: "site osaka", Detail: "key UABD: older"}}
	for name, c := range map[string]struct {
		facts
		want [][]string // parts of each entry
	}{
		"halted":              {facts{site: enrolled, holds: held(1), halts: halted, window: "22:00-04:00"}, [][]string{{"halted by order", "by anna: maintenance", "nightferry resume"}}},
		"halted, and differs": {facts{site: enrolled, holds: held(2), halts: halted, finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package"}}}, [][]string{{"halted by order"}, {"files differ", "once the halt is lifted: nightferry verify"}}},
		"revoked":             {facts{holds: held(2), deeds: revoked}, [][]string{{"revoked", "by ben: stolen", "nightferry site token osaka"}}},
		"never enrolled":      {facts{}, [][]string{{"not enrolled", "never joined", "nightferry site token osaka"}}},
		"failed twice":        {facts{site: free, holds: held(1), last: failed, finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", State: runs.Incomplete}}, open: opened("run/package", "two runs: permission denied")}, [][]string{{"last run incomplete", "permission denied", "setfacl"}}},
		"emptied": {facts{site: enrolled, holds: held(2), finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", State: runs.Emptied, Cause: "no record"}}, open: opened("target-emptied/package", "no record")},
			[][]string{{"target emptied", "no record", "mount the volume"}}},
		"ownership lost": {facts{site: free, holds: held(1), last: unowned, finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", Run: ledger.RunID{1}, State: runs.Unowned, Cause: "ownership lost"}}},
			[][]string{{"ownership lost", "nightferry sync --site osaka --channel package --adopt"}}},
		"read-only since a finding": {facts{site: free, holds: held(1), last: readonly, finds: []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", Run: ledger.RunID{2}}}},
			[][]string{{"last run failed", "dmesg"}, {"files differ", "--repair"}}},
		"another incident": {facts{site: enrolled, holds: held(2), open: opened("site-clock", "apart")}, [][]string{{"incident site-clock", "apart"}}},
	} {
		list, err := c.service(t).Why(t.Context(), fleet.Scope{Site: "osaka"})
		if err != nil || len(list) != len(c.want) {
			t.Errorf("%s: %+v, %v", name, list, err)
			continue
		}
		for i, parts := range c.want {
			text := strings.Join([]string{list[i].What, list[i].Cause, list[i].Remedy}, " | ")
			for _, part := range parts {
				if !strings.Contains(text, part) {
					t.Errorf("%s: %q lacks %q", name, text, part)
				}
			}
			if strings.HasPrefix(name, "halted") && strings.Contains(text, "--now") || name == "revoked" && (!list[i].Since.Equal(noon) || strings.Contains(text, "verify")) {
				t.Errorf("%s: %v %q", name, list[i].Since, text)
			}
		}
	}
}

type noLines struct{}

func (noLines) Header(context.Context, *ledger.Run) record.Header { return record.Header{} }
func (noLines) Lines(context.Context, *ledger.Run, bool, func(record.File) error) error {
	return nil
}
func (noLines) Untold(*ledger.Run, *manifest.Entry) record.File { return record.File{} }

// TestUnfinishedRun: of a run under way, the contents of its release and its progress are known.
func TestUnfinishedRun(t *testing.T) {
	run := ledger.Run{ID: ledger.RunID{1}, Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: two.Digest, Started: noon}
	moved := runs.Progress{Phase: "fetch", FilesDone: 1, FilesTotal: 3}
	f := &facts{last: []ledger.Run{run}, site: Site{Connected: true, Progress: map[string]Progress{"package": {Run: run.ID, Progress: moved}}}}
	s := f.service(t)
	s.o.RunLog = noLines{}
	var got RunDetail
	show := func() {
		t.Helper()
		if err := s.RunShow(t.Context(), "01", false, func(d RunDetail) error { got = d; return nil }, func(record.File) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if show(); got.Files != two.Files || got.Bytes != two.Bytes || got.Progress == nil || *got.Progress != moved {
		t.Errorf("%+v", got)
	}
	f.site.Progress["package"] = Progress{Run: ledger.RunID{2}, Progress: moved}
	if show(); got.Progress != nil {
		t.Errorf("the progress of another run: %+v", got.Progress)
	}
}

// lostLogs are log files that somebody has removed.
type lostLogs struct{ Logs }

func (lostLogs) Open(p string) (io.ReadSeekCloser, error) {
	return nil, &fs.PathError{Op: "open", Path: "/data/" + p, Err: fs.ErrNotExist}
}

func (l lostLogs) Scan(p string, _ func(record.File) error) (h record.Header, e record.End, err error) {
	_, err = l.Open(p)
	return h, e, err
}

// TestLogIsGone: a run whose log file was removed says so, by the log's own name.
func TestLogIsGone(t *testing.T) {
	run := ledger.Run{ID: ledger.RunID{1}, Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: two.Digest, Started: noon, Finished: noon, Rendered: noon}
	s := (&facts{last: []ledger.Run{run}}).service(t)
	s.o.Logs, s.o.RunLog = lostLogs{}, noLines{}
	none := func(record.File) error { return nil }
	_, _, opened := s.OpenLog(t.Context(), "01")
	for _, err := range []error{opened, s.RunShow(t.Context(), "01", false, func(RunDetail) error { return nil }, none), s.RunShow(t.Context(), "01", true, func(RunDetail) error { return nil }, none)} {
		if err == nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "its log file apac/osaka/package/") || strings.Contains(err.Error(), "/data") {
			t.Errorf("%v", err)
		}
	}
}

// TestPlan: a site that holds nothing gets all of the newest release in its next
// window, and nothing while a person must act first.
func TestPlan(t *testing.T) {
	f := &facts{site: Site{Connected: true, Identity: &ledger.Identity{Enrolled: noon}}, window: "22:00-04:00"}
	plan := func() PlanItem {
		t.Helper()
		p, err := f.service(t).Plan(t.Context(), PlanRequest{})
		if err != nil || len(p.Items) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		return p.Items[0]
	}
	if p := plan(); p.Bytes != two.Bytes || !p.Start.Equal(noon.Add(10*time.Hour)) || p.Requests != 4+handful || !p.Assumed || p.Blocked != "" {
		t.Errorf("%+v", p)
	}
	f.holds = []ledger.Holding{{Domain: "apac", Site: "osaka", Channel: "package", Number: 2, Release: two.Digest, Verified: noon, Attested: noon}}
	f.finds = []ledger.Finding{{Domain: "apac", Site: "osaka", Channel: "package", State: runs.Emptied}}
	if p := plan(); p.Blocked != "target emptied" || p.Bytes != two.Bytes || !p.Start.IsZero() || p.Estimated {
		t.Errorf("with a target that lost its release: %+v", p)
	}
	f.full = true
	if p := plan(); p.Blocked != "disk full" || !p.Start.IsZero() {
		t.Errorf("with a full disk: %+v", p)
	}
	f.site.Halted = &wire.Stop{}
	if p := plan(); p.Blocked != "halted on the site" {
		t.Errorf("halted there: %+v", p)
	}
	if _, err := f.service(t).Plan(t.Context(), PlanRequest{Days: 367}); err == nil {
		t.Error("a plan for more than a year, and no error")
	}
}
