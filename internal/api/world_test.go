package api

import (
	"context"
	"slices"
	"time"

	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/halt"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/runs"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
)

// world is a backend of two sites that share nothing: rome in alpha and emea, oslo in beta and ap. It has no rights of
// its own, and records the deeds that reach it.
type world struct {
	fleet  *fleet.Fleet
	deeds  []string
	audits []string
}

func newWorld() *world {
	place := []fleet.Placement{{Channel: "package"}}
	return &world{fleet: &fleet.Fleet{
		Channels: []fleet.Channel{{Name: "package"}},
		Domains:  []fleet.Domain{{Name: "alpha"}, {Name: "beta"}},
		Regions:  []fleet.Region{{Name: "ap"}, {Name: "emea"}},
		Sites:    []fleet.Site{{Name: "oslo", Domain: "beta", Region: "ap", Placements: place}, {Name: "rome", Domain: "alpha", Region: "emea", Placements: place}},
	}}
}

func (w *world) backend() Backend {
	now := func() time.Time { return time.Unix(0, 0) }
	return Backend{w, w, nil, w, w, alerts{w}, halts{w}, w, w, &works{world: w}, w, w, w, happenings{w}, issuer{w}, visits{w}, w, now, nil}
}

type (
	alerts struct{ *world }
	halts  struct{ *world }
	// happenings is one event of each site, and one of the Core.
	happenings struct{ *world }
	issuer     struct{ *world }
	visits     struct{ *world }
)

func (w *world) did(what string) { w.deeds = append(w.deeds, what) }

// each returns one item for each site of a scope.
func each[T any](w *world, q fleet.Scope, item func(*fleet.Site) T) (out []T, err error) {
	list, err := w.fleet.Select(q)
	for i := range list {
		out = append(out, item(&list[i]))
	}
	return out, err
}

func runOfSite(n int) (id runs.ID) { return runs.ID{byte(0xa0 + n)} }

func (w *world) run(s *fleet.Site) ledger.Run {
	return ledger.Run{ID: runOfSite(slices.IndexFunc(w.fleet.Sites, func(x fleet.Site) bool { return x.Name == s.Name })), Domain: s.Domain, Site: s.Name, Channel: "package"}
}

func (w *world) Status(context.Context) (*query.Status, error) {
	return &query.Status{Store: "oslo"}, nil
}

func (w *world) Sites(_ context.Context, q fleet.Scope) ([]query.SiteStatus, error) {
	return each(w, q, func(s *fleet.Site) query.SiteStatus { return query.SiteStatus{Site: s.Name, Domain: s.Domain} })
}

func (w *world) Why(_ context.Context, q fleet.Scope) ([]query.Reason, error) {
	list, err := each(w, q, func(s *fleet.Site) query.Reason { return query.Reason{Site: s.Name, Domain: s.Domain} })
	return append(list, query.Reason{What: "the Core's own, about oslo"}), err
}

func (w *world) Where(context.Context, string, string) ([]query.Place, error) {
	return each(w, fleet.Scope{}, func(s *fleet.Site) query.Place { return query.Place{Site: s.Name, Domain: s.Domain} })
}

// Incidents are one of each site, one that they share, and one of the Core.
func (w *world) Incidents(context.Context, bool) ([]query.Incident, error) {
	list, err := each(w, fleet.Scope{}, func(s *fleet.Site) query.Incident {
		return query.Incident{Incident: ledger.Incident{ID: int64(len(s.Region)), Text: s.Name, Members: []ledger.Member{{Domain: s.Domain, Site: s.Name}}}}
	})
	shared := ledger.Incident{ID: 9, Key: "run/oslo", Text: "oslo is first", Acked: "oslo", Members: []ledger.Member{{Domain: "beta", Site: "oslo"}, {Domain: "alpha", Site: "rome"}}}
	return append(list, query.Incident{Incident: shared}, query.Incident{Incident: ledger.Incident{ID: 10, Text: "the Core's own, about oslo", Members: []ledger.Member{{}}}}), err
}

func (w *world) Runs(_ context.Context, f ledger.RunFilter) ([]ledger.Run, error) {
	return each(w, fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel}, w.run)
}

func (w *world) RunShow(_ context.Context, id string, _ bool, begin func(query.RunDetail) error, fn func(record.File) error) error {
	for i := range w.fleet.Sites {
		if x := w.run(&w.fleet.Sites[i]); x.ID.String() == id {
			if err := begin(query.RunDetail{Run: x}); err != nil {
				return err
			}
			return fn(record.File{Path: x.Site})
		}
	}
	return ledger.ErrNotFound
}

func (w *world) FailingFiles(_ context.Context, q fleet.Scope, _ int) ([]ledger.Exception, error) {
	return each(w, q, func(s *fleet.Site) ledger.Exception { return ledger.Exception{Site: s.Name, Domain: s.Domain} })
}

func (w *world) Deeds(context.Context, ledger.DeedFilter) ([]ledger.Deed, error) {
	return []ledger.Deed{{Object: "site oslo"}}, nil
}

func (w *world) Logs(_ context.Context, f record.Filter, fn func(record.Log) error) error {
	list, err := w.fleet.Select(fleet.Scope{Domain: f.Domain, Site: f.Site, Channel: f.Channel})
	for _, s := range list {
		if err := fn(record.Log{Place: record.Place{Domain: s.Domain, Site: s.Name}}); err != nil {
			return err
		}
	}
	return err
}

func (w *world) Plan(_ context.Context, r query.PlanRequest) (*query.NightPlan, error) {
	items, err := each(w, r.Scope, func(s *fleet.Site) query.PlanItem { return query.PlanItem{Site: s.Name} })
	return &query.NightPlan{Items: items}, err
}

func (w *world) Windows(_ context.Context, r query.WindowsRequest) ([]query.Opening, error) {
	return each(w, r.Scope, func(s *fleet.Site) query.Opening { return query.Opening{Site: s.Name, Domain: s.Domain} })
}

func (w *world) CloseIncident(context.Context, int64, string) (query.Incident, error) {
	w.did("close")
	return query.Incident{}, nil
}

func (w *world) AckIncident(context.Context, int64, string, time.Time) (query.Incident, error) {
	w.did("ack")
	return query.Incident{}, nil
}

func (w alerts) Test(context.Context, string) ([]core.AlertTest, error) {
	w.did("test")
	return nil, nil
}

var orderOfSite = map[string]halt.ID{"rome": {0xb0}, "oslo": {0xb1}}

func (w halts) List(context.Context, bool) ([]core.HaltView, error) {
	return each(w.world, fleet.Scope{}, func(s *fleet.Site) core.HaltView {
		return core.HaltView{Halt: ledger.Halt{Order: orderOfSite[s.Name], Scope: halt.Site, Value: s.Name}, Sites: []core.HaltSite{{Domain: s.Domain, Site: s.Name}}}
	})
}

func (w happenings) Follow(_ context.Context, _ string, send func(*EventLine) error) error {
	for _, s := range w.fleet.Sites {
		if err := send(&EventLine{ID: "x-1", Event: &Event{Domain: s.Domain, Site: s.Name}}); err != nil {
			return err
		}
	}
	return send(&EventLine{Event: &Event{Text: "the Core's own, about oslo"}})
}

func (w halts) Halt(_ context.Context, r core.HaltRequest) (*core.HaltChange, error) {
	w.did("halt")
	return &core.HaltChange{}, nil
}

func (w halts) Resume(context.Context, string, string, string) (*core.HaltChange, error) {
	w.did("resume")
	return &core.HaltChange{}, nil
}

func (w *world) Sync(context.Context, core.SyncRequest) ([]core.Order, error) {
	w.did("sync")
	return nil, nil
}

func (w *world) Verify(context.Context, core.VerifyRequest) ([]core.Order, error) {
	w.did("verify")
	return nil, nil
}

func (w *world) Follow(_ context.Context, _ fleet.Scope, order func() ([]core.Order, error), ordered func([]core.Order) error, _ func(core.Event) error) error {
	w.did("follow")
	list, err := order()
	if err != nil {
		return err
	}
	return ordered(list)
}

func (w *world) Withdraw(_ context.Context, orders []core.Order) (withdrawn, left []core.Order, err error) {
	w.did("withdraw")
	return orders, nil, nil
}

// works are a job of each site and one of all. A new job is done before Start returns.
type works struct {
	*world
	lines []byte
}

func (w *works) Start(ctx context.Context, j ledger.Job, work jobs.Work) (ledger.Job, error) {
	j.ID, j.State = "new", jobs.Done
	if failure := work(ctx, func(l jobs.Line) { w.lines = append(append(w.lines, l.Text...), '\n') }); failure != nil {
		j.State, j.Error = jobs.Failed, failure
	}
	j.Lines = w.lines
	return j, nil
}

func (w *works) List(context.Context, string, int) ([]jobs.Status, error) {
	list, err := each(w.world, fleet.Scope{}, func(s *fleet.Site) jobs.Status {
		return jobs.Status{Job: ledger.Job{ID: "job-" + s.Name, Kind: "sync", Site: s.Name}}
	})
	return append(list, jobs.Status{Job: ledger.Job{ID: "job-all", Kind: "publish", Who: "oslo"}}), err
}

func (w *works) Show(_ context.Context, id string) (jobs.Status, error) {
	list, err := w.List(context.Background(), "", 0)
	for _, j := range list {
		if j.ID == id {
			return j, err
		}
	}
	return jobs.Status{}, ledger.ErrNotFound
}

func (w *works) Stop(ctx context.Context, id, _ string) (jobs.Status, error) {
	w.did("stop")
	return w.Show(ctx, id)
}

func (w *works) Follow(ctx context.Context, id string, send func([]byte, int) error) (ledger.Job, error) {
	j, err := w.Show(ctx, id)
	if err == nil {
		err = send([]byte(`{"event":{"site":"`+j.Site+`"}}`), 0)
	}
	return j.Job, err
}

func (w *world) Limit(context.Context, core.LimitRequest) ([]core.Limited, error) {
	w.did("limit")
	return nil, nil
}

func (w *world) Channels() []string { return []string{"package"} }

func (w *world) Publish(context.Context, string, core.PublishOptions) (*core.Published, error) {
	w.did("publish")
	return &core.Published{}, nil
}

func (w *world) Token(context.Context, string, time.Duration) (*core.IssuedToken, error) {
	w.did("token")
	return &core.IssuedToken{}, nil
}

func (w *world) Wave(context.Context, fleet.Scope, int, time.Duration) ([]core.IssuedToken, error) {
	w.did("wave")
	return nil, nil
}

func (w *world) RevokeSite(context.Context, string, string) error {
	w.did("revoke")
	return nil
}

func (w *world) Confirm(context.Context, string, string) error {
	w.did("confirm")
	return nil
}

func (w *world) RevokeDomain(context.Context, string, string) ([]string, error) {
	w.did("revoke")
	return nil, nil
}

func (w *world) ListSecrets(context.Context) ([]vault.Info, error) {
	w.did("secrets")
	return nil, nil
}

func (w *world) ChangeSecret(context.Context, bool, SecretRequest) (SecretChange, error) {
	w.did("secret")
	return SecretChange{}, nil
}

func (w *world) Health(context.Context) (core.Health, error) {
	return core.Health{Live: true, Reasons: []string{"oslo"}}, nil
}

func (w *world) Tasks(context.Context) ([]tasks.Status, error) {
	return []tasks.Status{{Name: "oslo"}}, nil
}

func (w *world) Reload(context.Context) (Reloaded, error) {
	w.did("reload")
	return Reloaded{}, nil
}

func (w *world) Held(context.Context) (*Held, error) { return &Held{Repo: "oslo"}, nil }

func (w *world) LogsDir() string { return "/logs" }

func (w *world) Configured() *fleet.Fleet { return w.fleet }

func (w *world) Audit(_ context.Context, what, object, detail string) error {
	w.audits = append(w.audits, what+" "+object+": "+detail)
	return nil
}

func (w issuer) List(context.Context) ([]ledger.APIToken, error) {
	return []ledger.APIToken{{Name: "oslo"}}, nil
}

func (w issuer) Issue(context.Context, apitokens.Request) (string, ledger.APIToken, error) {
	w.did("issue")
	return "", ledger.APIToken{}, nil
}

func (w issuer) Revoke(context.Context, string) (ledger.APIToken, error) {
	w.did("revoke")
	return ledger.APIToken{}, nil
}

func (w visits) Address(context.Context) (ConsoleAddress, error) {
	return ConsoleAddress{URL: "https://oslo"}, nil
}

func (w visits) Link(context.Context) (ConsoleLink, error) {
	w.did("link")
	return ConsoleLink{}, nil
}

func (w visits) Sessions(context.Context) ([]ledger.Session, error) {
	return []ledger.Session{{Person: "oslo"}}, nil
}

func (w visits) EndSessions(context.Context, string, string) ([]ledger.Session, error) {
	w.did("end")
	return nil, nil
}
