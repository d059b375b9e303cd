package api

import (
	"context"
	"io"
	"time"

	"nightferry/internal/apitokens"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
)

// Backend is all that a Core offers to its clients, by concern. The principal of each
// call is in its context (rights.With), and its name as the actor (core.WithActor).
type Backend struct {
	Fleet     Fleet
	Records   Records
	LogFiles  LogFiles
	Forecast  Forecast
	Incidents Incidents
	Alerts    Alerts
	Halts     Halts
	Orders    Orders
	Publisher Publisher
	Jobs      Jobs
	Members   Members
	Secrets   Secrets
	Process   Process
	Events    Events
	Tokens    Tokens
	Console   Console
	Rights    Rights
	Now       func() time.Time
	// Explain turns the error of a job into what its clients get. It must hold no secret. Nil: code failed and the error's own text.
	Explain func(error) *Error
}

// Fleet shows the present state.
type Fleet interface {
	Status(ctx context.Context) (*query.Status, error)
	Sites(ctx context.Context, scope fleet.Scope) ([]query.SiteStatus, error)
	Why(ctx context.Context, scope fleet.Scope) ([]query.Reason, error)
	Where(ctx context.Context, channel, path string) ([]query.Place, error)
	Incidents(ctx context.Context, all bool) ([]query.Incident, error)
}

// Records lists what happened.
type Records interface {
	Runs(ctx context.Context, f ledger.RunFilter) ([]ledger.Run, error)
	RunShow(ctx context.Context, id string, all bool, begin func(query.RunDetail) error, fn func(record.File) error) error
	FailingFiles(ctx context.Context, scope fleet.Scope, limit int) ([]ledger.Exception, error)
	Deeds(ctx context.Context, f ledger.DeedFilter) ([]ledger.Deed, error)
	Logs(ctx context.Context, f record.Filter, fn func(record.Log) error) error
}

// LogFiles reads the log files of runs.
type LogFiles interface {
	// OpenLog opens the log file of the run whose id, or whose unique beginning, is id. fs.ErrNotExist: it has none yet.
	OpenLog(ctx context.Context, id string) (*ledger.Run, io.ReadSeekCloser, error)
}

// Forecast plans runs, and lists the windows in which they may move.
type Forecast interface {
	Windows(ctx context.Context, r query.WindowsRequest) ([]query.Opening, error)
	Plan(ctx context.Context, r query.PlanRequest) (*query.NightPlan, error)
}

// Incidents changes open incidents.
type Incidents interface {
	CloseIncident(ctx context.Context, id int64, reason string) (query.Incident, error)
	AckIncident(ctx context.Context, id int64, note string, silent time.Time) (query.Incident, error)
}

// Alerts tests who is notified of incidents.
type Alerts interface {
	Test(ctx context.Context, only string) ([]core.AlertTest, error)
}

// Halts is the kill switch.
type Halts interface {
	List(ctx context.Context, all bool) ([]core.HaltView, error)
	Halt(ctx context.Context, r core.HaltRequest) (*core.HaltChange, error)
	Resume(ctx context.Context, prefix, scope, value string) (*core.HaltChange, error)
}

// Orders sends sync requests, verify requests and limits to sites.
type Orders interface {
	Sync(ctx context.Context, r core.SyncRequest) ([]core.Order, error)
	Verify(ctx context.Context, r core.VerifyRequest) ([]core.Order, error)
	Follow(ctx context.Context, scope fleet.Scope, order func() ([]core.Order, error), ordered func([]core.Order) error, send func(core.Event) error) error
	Limit(ctx context.Context, r core.LimitRequest) ([]core.Limited, error)
	Withdraw(ctx context.Context, orders []core.Order) (withdrawn, left []core.Order, err error)
}

// Jobs runs long work. *jobs.Service is one.
type Jobs interface {
	Start(ctx context.Context, j ledger.Job, work jobs.Work) (ledger.Job, error)
	Stop(ctx context.Context, id, by string) (jobs.Status, error)
	Show(ctx context.Context, id string) (jobs.Status, error)
	List(ctx context.Context, after string, limit int) ([]jobs.Status, error)
	Follow(ctx context.Context, id string, send func(text []byte, missed int) error) (ledger.Job, error)
}

// Publisher publishes sources.
type Publisher interface {
	Channels() []string
	Publish(ctx context.Context, channel string, o core.PublishOptions) (*core.Published, error)
}

// Members admits sites and revokes them.
type Members interface {
	Token(ctx context.Context, site string, life time.Duration) (*core.IssuedToken, error)
	Wave(ctx context.Context, scope fleet.Scope, n int, life time.Duration) ([]core.IssuedToken, error)
	RevokeSite(ctx context.Context, name, reason string) error
	Confirm(ctx context.Context, name, reason string) error
	RevokeDomain(ctx context.Context, name, reason string) ([]string, error)
}

// Tokens issues API tokens and revokes them.
type Tokens interface {
	List(ctx context.Context) ([]ledger.APIToken, error)
	Issue(ctx context.Context, r apitokens.Request) (text string, t ledger.APIToken, err error)
	Revoke(ctx context.Context, id string) (ledger.APIToken, error)
}

// Console is the door for browsers, and the people who have signed in there.
type Console interface {
	Address(ctx context.Context) (ConsoleAddress, error)
	Link(ctx context.Context) (ConsoleLink, error)
	Sessions(ctx context.Context) ([]ledger.Session, error)
	EndSessions(ctx context.Context, id, person string) ([]ledger.Session, error)
}

// Events sends what happens.
type Events interface {
	Follow(ctx context.Context, after string, send func(*EventLine) error) error
}

// Secrets lists and changes the vault.
type Secrets interface {
	ListSecrets(ctx context.Context) ([]vault.Info, error)
	ChangeSecret(ctx context.Context, rotate bool, r SecretRequest) (SecretChange, error)
}

// Process is the program around the Core.
type Process interface {
	Health(ctx context.Context) (core.Health, error)
	Tasks(ctx context.Context) ([]tasks.Status, error)
	Reload(ctx context.Context) (Reloaded, error)
	Held(ctx context.Context) (*Held, error)
	LogsDir() string
}
