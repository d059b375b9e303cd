package consoletest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
)

type (
	view   struct{ w *World }
	halts  struct{ w *World }
	events struct{ w *World }
	tokens struct{ w *World }
)

// Status implements api.Fleet.
func (v view) Status(ctx) (*query.Status, error) {
	s := &query.Status{At: v.w.now(), Version: "1.0.0", Repo: "3f9a21", Store: "s3://content/fleet", Revision: 88, Sites: len(v.w.sites()), Incidents: len(v.w.IncidentLog), Halts: len(v.w.HaltList), StoreRead: v.w.now()}
	for _, r := range v.w.Releases {
		if v.w.newest(r.Channel).Number == r.Number {
			s.Channels = append(s.Channels, r)
		}
	}
	return s, nil
}

func within(s fleet.Scope, domain, region, site, channel string) bool {
	return (s.Domain == "" || s.Domain == domain) && (s.Region == "" || s.Region == region) && (s.Site == "" || s.Site == site) && (s.Channel == "" || channel == "" || s.Channel == channel)
}

// Sites implements api.Fleet.
func (v view) Sites(_ ctx, q fleet.Scope) (out []query.SiteStatus, err error) {
	for _, s := range v.w.sites() {
		if !within(q, s.Domain, s.Region, s.Site, "") {
			continue
		}
		s.Channels = slices.DeleteFunc(slices.Clone(s.Channels), func(c query.ChannelStatus) bool { return q.Channel != "" && c.Channel != q.Channel })
		out = append(out, s)
	}
	if len(out) == 0 && q.Site != "" {
		return nil, &fleet.UnknownError{What: "site", Name: q.Site, Hint: "osaka"}
	}
	return out, nil
}

// Why implements api.Fleet.
func (v view) Why(_ ctx, q fleet.Scope) (out []query.Reason, err error) {
	for _, s := range v.w.sites() {
		for _, c := range s.Channels {
			if within(q, s.Domain, s.Region, s.Site, c.Channel) {
				out = append(out, c.Reasons...)
			}
		}
	}
	return out, nil
}

// Where implements api.Fleet.
func (v view) Where(_ ctx, channel, path string) (out []query.Place, err error) {
	if strings.HasPrefix(path, "no/") {
		return nil, &fleet.UnknownError{What: "file of channel " + channel, Name: path, Hint: "did you mean tools/setup.exe?"}
	}
	for _, s := range v.w.sites() {
		for _, c := range s.Channels {
			if c.Channel != channel {
				continue
			}
			p := query.Place{Domain: s.Domain, Site: s.Site, Release: c.Holds, Present: true, Size: 50 << 20, Digest: digest.Of([]byte(path)), Since: c.Since, Verified: c.Verified, State: "older", Run: c.Run}
			if c.Holds == c.Wants {
				p.State, p.Current = "current", true
			}
			if c.State == "different" {
				p.State, p.Verified, p.Found, p.Cause = "differs", time.Time{}, v.w.now(), c.Why
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// Incidents implements api.Fleet.
func (v view) Incidents(ctx, bool) ([]query.Incident, error) { return v.w.IncidentLog, nil }

// Runs implements api.Records.
func (v view) Runs(_ ctx, f ledger.RunFilter) (out []ledger.Run, err error) {
	limit := f.Limit
	if limit == 0 {
		limit = 1000
	}
	seen := f.After.IsZero()
	for _, r := range v.w.RunList {
		if !seen {
			seen = r.ID == f.After
			continue
		}
		if (f.Domain == "" || f.Domain == r.Domain) && (f.Site == "" || f.Site == r.Site) && (f.Channel == "" || f.Channel == r.Channel) && (f.State == "" || f.State == r.State) && (!f.Open || r.Finished.IsZero()) &&
			(f.Since.IsZero() || !r.Started.Before(f.Since)) && (f.Until.IsZero() || r.Started.Before(f.Until)) && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

// RunShow implements api.Records.
func (v view) RunShow(_ ctx, id string, _ bool, begin func(query.RunDetail) error, fn func(record.File) error) error {
	for _, r := range v.w.RunList {
		if strings.HasPrefix(r.ID.String(), id) {
			if err := begin(query.RunDetail{Run: r, Files: r.Totals.Files, Bytes: r.Totals.Bytes, Log: "2026/11/30/x.ndjson"}); err != nil {
				return err
			}
			for _, f := range v.w.Files {
				if err := fn(f); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return fmt.Errorf("run %q: %w", id, ledger.ErrNotFound)
}

// FailingFiles implements api.Records.
func (v view) FailingFiles(ctx, fleet.Scope, int) ([]ledger.Exception, error) { return nil, nil }

// Deeds implements api.Records.
func (v view) Deeds(_ ctx, f ledger.DeedFilter) (out []ledger.Deed, err error) {
	for _, d := range v.w.Audits {
		if (f.Who == "" || f.Who == d.Who) && (f.What == "" || f.What == d.What) {
			out = append(out, d)
		}
	}
	return out, nil
}

// Logs implements api.Records.
func (v view) Logs(_ ctx, f record.Filter, fn func(record.Log) error) error {
	for _, r := range v.w.RunList {
		if r.Finished.IsZero() || f.Domain != "" && f.Domain != r.Domain || f.Site != "" && f.Site != r.Site || f.Channel != "" && f.Channel != r.Channel || !strings.HasPrefix(r.ID.String(), f.Run) {
			continue
		}
		if err := fn(record.Log{Path: r.Site + "/" + r.ID.String() + ".ndjson", Size: 12_345, Place: record.Place{Domain: r.Domain, Site: r.Site, Channel: r.Channel, Run: r.ID.String(), Date: r.Started}}); err != nil {
			return err
		}
	}
	return nil
}

// OpenLog implements api.LogFiles.
func (v view) OpenLog(_ ctx, id string) (*ledger.Run, io.ReadSeekCloser, error) {
	for _, r := range v.w.RunList {
		if !strings.HasPrefix(r.ID.String(), id) {
			continue
		}
		if r.Finished.IsZero() {
			return &r, nil, fmt.Errorf("run %s: its log file is not written yet: %w", r.ID, fs.ErrNotExist)
		}
		var b bytes.Buffer
		lines := json.NewEncoder(&b)
		_ = lines.Encode(record.Header{Version: record.Version, Run: r.ID.String(), Domain: r.Domain, Site: r.Site, Channel: r.Channel})
		for _, f := range v.w.Files {
			_ = lines.Encode(f) // into memory
		}
		_ = lines.Encode(record.End{State: r.State, Lines: int64(len(v.w.Files))})
		return &r, openLog{bytes.NewReader(b.Bytes())}, nil
	}
	return nil, nil, fmt.Errorf("run %q: %w", id, ledger.ErrNotFound)
}

// openLog is a log in memory.
type openLog struct{ *bytes.Reader }

func (openLog) Close() error { return nil }

// Plan implements api.Forecast.
func (v view) Plan(_ ctx, r query.PlanRequest) (*query.NightPlan, error) {
	p := &query.NightPlan{From: r.At, Days: max(1, r.Days), Currency: "EUR"}
	if r.At.IsZero() {
		p.From = v.w.now()
	}
	for _, x := range v.w.Items {
		if within(r.Scope, x.Domain, x.Region, x.Site, x.Channel) {
			p.Items = append(p.Items, x)
		}
	}
	return p, nil
}

// Windows implements api.Forecast.
func (v view) Windows(_ ctx, r query.WindowsRequest) (out []query.Opening, err error) {
	for _, x := range v.w.Openings {
		if within(r.Scope, x.Domain, x.Region, x.Site, x.Channel) && x.Start.Before(r.To) && x.End.After(r.From) {
			out = append(out, x)
		}
	}
	return out, nil
}

// CloseIncident implements api.Incidents.
func (v view) CloseIncident(_ ctx, id int64, reason string) (query.Incident, error) {
	v.w.did("close %d %s", id, reason)
	return query.Incident{}, nil
}

// AckIncident implements api.Incidents.
func (v view) AckIncident(_ ctx, id int64, note string, silent time.Time) (query.Incident, error) {
	if !silent.IsZero() {
		note += fmt.Sprintf(", silent for %s", silent.Sub(v.w.now()).Round(time.Minute))
	}
	v.w.did("ack %d %s", id, note)
	return query.Incident{}, nil
}

// Sync implements api.Orders.
func (v view) Sync(c ctx, r core.SyncRequest) ([]core.Order, error) {
	if err := c.Err(); err != nil {
		return nil, err
	}
	v.w.did("sync %+v", r)
	return []core.Order{{Site: r.Scope.Site, Channel: "package", Number: 13, Connected: true}}, nil
}

// Verify implements api.Orders.
func (v view) Verify(_ ctx, r core.VerifyRequest) ([]core.Order, error) {
	v.w.did("verify %+v", r)
	return []core.Order{{Site: r.Scope.Site, Channel: "package", Number: 13, Connected: true}}, nil
}

// Withdraw implements api.Orders.
func (v view) Withdraw(_ ctx, orders []core.Order) (withdrawn, left []core.Order, err error) {
	v.w.did("withdraw %d", len(orders))
	return orders, nil, nil
}

// Follow implements api.Orders. No page follows a request.
func (v view) Follow(ctx, fleet.Scope, func() ([]core.Order, error), func([]core.Order) error, func(core.Event) error) error {
	return nil
}

// Limit implements api.Orders.
func (v view) Limit(_ ctx, r core.LimitRequest) ([]core.Limited, error) {
	v.w.did("limit %+v", r)
	return []core.Limited{{Site: r.Scope.Site, Rate: r.Rate, Connected: true}}, nil
}

// Configured implements api.Rights.
func (v view) Configured() *fleet.Fleet {
	f := &fleet.Fleet{Channels: []fleet.Channel{{Name: "driver"}, {Name: "package"}}, Domains: []fleet.Domain{{Name: "corp"}, {Name: "plant"}}, Regions: []fleet.Region{{Name: "amer"}, {Name: "ap"}, {Name: "emea"}}}
	for _, s := range v.w.sites() {
		f.Sites = append(f.Sites, fleet.Site{Name: s.Site, Domain: s.Domain, Region: s.Region, Zone: s.Zone})
	}
	slices.SortFunc(f.Sites, func(a, b fleet.Site) int { return strings.Compare(a.Name, b.Name) })
	return f
}

// Audit implements api.Rights.
func (v view) Audit(_ ctx, what, object, _ string) error {
	v.w.did("audit %s %s", what, object)
	return nil
}

// List implements api.Halts.
func (h halts) List(_ ctx, all bool) (out []core.HaltView, err error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for _, x := range h.w.HaltList {
		if all || x.Resumed.IsZero() {
			out = append(out, x)
		}
	}
	return out, nil
}

// Halt implements api.Halts.
func (h halts) Halt(_ ctx, r core.HaltRequest) (*core.HaltChange, error) {
	h.w.did("halt %s %s: %s", r.Scope, r.Value, r.Reason)
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	x := core.HaltView{Halt: ledger.Halt{Order: halt.ID{0xaa, byte(len(h.w.HaltList))}, Scope: r.Scope, Value: r.Value, Reason: r.Reason, By: "anna", At: h.w.at}}
	for i, s := range h.w.SiteList {
		if r.Scope == halt.All || r.Value == s.Site || r.Value == s.Region || r.Value == s.Domain {
			hs := core.HaltSite{Domain: s.Domain, Site: s.Site, Enrolled: true, Connected: s.Connected}
			if s.Connected && i%7 != 0 {
				hs.Stopped, hs.BytesAfter = h.w.at.Add(time.Duration(200+i*9)*time.Millisecond), int64(i)*65_536
			}
			x.Sites = append(x.Sites, hs)
		}
	}
	h.w.HaltList = append([]core.HaltView{x}, h.w.HaltList...)
	return &core.HaltChange{Orders: []halt.ID{x.Order}, Epoch: 4, Sites: len(x.Sites)}, nil
}

// Resume implements api.Halts.
func (h halts) Resume(_ ctx, prefix, scope, value string) (*core.HaltChange, error) {
	h.w.did("resume %s", strings.TrimSpace(prefix+" "+scope+" "+value))
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for i := range h.w.HaltList {
		if x := &h.w.HaltList[i]; prefix != "" && strings.HasPrefix(x.Order.String(), prefix) {
			x.Resumed, x.ResumedBy = h.w.at, "anna"
			return &core.HaltChange{Orders: []halt.ID{x.Order}, Epoch: 5, Sites: len(x.Sites)}, nil
		}
	}
	return nil, core.ErrNoOrder
}

// sites are those of now.
func (w *World) sites() []query.SiteStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.SiteList
}

func (w *World) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// Advance lets time pass.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

// Change gives a site's channel another state, and emits an event.
func (w *World) Change(site, channel, state string) {
	w.mu.Lock()
	list := slices.Clone(w.SiteList)
	for i := range list {
		if list[i].Site == site {
			list[i].Channels = slices.Clone(list[i].Channels)
			for k := range list[i].Channels {
				if list[i].Channels[k].Channel == channel {
					list[i].Channels[k].State = state
				}
			}
		}
	}
	w.SiteList = list
	w.mu.Unlock()
	select {
	case w.added <- struct{}{}:
	default: // one is waiting
	}
}

// Follow implements api.Events: one line at first, and one for each change.
func (e events) Follow(ctx ctx, _ string, send func(*api.EventLine) error) error {
	if err := send(&api.EventLine{}); err != nil {
		return err
	}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-e.w.added:
		}
		if err := send(&api.EventLine{ID: fmt.Sprintf("x-%d", n), Event: &api.Event{At: e.w.now(), Kind: "ended", Domain: "plant", Site: "osaka", Channel: "package", Ended: &api.Run{State: runs.Verified}}}); err != nil {
			return err
		}
	}
}

// Address implements api.Console. No page shows it.
func (v view) Address(ctx) (api.ConsoleAddress, error) { return api.ConsoleAddress{}, nil }

// Link implements api.Console. No page makes links.
func (v view) Link(ctx) (api.ConsoleLink, error) { return api.ConsoleLink{}, nil }

// Sessions implements api.Console.
func (v view) Sessions(ctx) ([]ledger.Session, error) {
	now := v.w.now()
	return []ledger.Session{{ID: "5e551011", Person: "user ben@example.com", Subject: "https://idp.example.com 7", Address: "192.0.2.7:50110", Started: now.Add(-3 * time.Hour), Seen: now.Add(-4 * time.Minute), Expires: now.Add(9 * time.Hour)}}, nil
}

// EndSessions implements api.Console.
func (v view) EndSessions(_ ctx, id, _ string) ([]ledger.Session, error) {
	v.w.did("end session %s", id)
	return nil, nil
}

// Channels implements api.Publisher.
func (v view) Channels() []string { return []string{"driver", "package"} }

// Publish implements api.Publisher.
func (v view) Publish(_ ctx, channel string, o core.PublishOptions) (*core.Published, error) {
	v.w.did("publish %s, dry run: %v, deletes: %v", channel, o.DryRun, o.AllowDeletes)
	if channel == "driver" && !o.AllowDeletes {
		return nil, &api.Error{Code: "refused", Message: "the source lacks 9,120 of 18,252 files of the last release", Fix: "check the source, or allow the deletes"}
	}
	if !o.Reviewed.IsZero() && o.Reviewed != v.w.Tree {
		return nil, &api.Error{Code: "refused", Message: "the source has changed since the dry run that was reviewed", Fix: "review another dry run"}
	}
	return &core.Published{Tree: v.w.Tree, Run: v.w.RunList[5].ID.String(), Channel: channel, Number: v.w.newest(channel).Number + 1, DryRun: o.DryRun, Files: 1930, Bytes: 42 << 30, Added: 12, Changed: 240, Removed: 3, Read: 3 << 30, Sent: 900 << 20, Sites: 26}, nil
}

// List implements api.Tokens.
func (t tokens) List(ctx) ([]ledger.APIToken, error) {
	return []ledger.APIToken{{ID: "k1", Name: "report", Role: "viewer", Issued: t.w.now().AddDate(0, 0, -9), IssuedBy: "anna", Expires: t.w.now().AddDate(0, 2, 0), Used: t.w.now().Add(-time.Hour)}}, nil
}

// Issue implements api.Tokens. No page issues tokens.
func (t tokens) Issue(ctx, apitokens.Request) (string, ledger.APIToken, error) {
	return "", ledger.APIToken{}, nil
}

// Revoke implements api.Tokens. No page revokes tokens.
func (t tokens) Revoke(ctx, string) (ledger.APIToken, error) { return ledger.APIToken{}, nil }
