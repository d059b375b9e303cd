package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/rights"
	"nightferry/internal/runs"
)

// location is where a client finds the job.
func (j *Job) location() string { return "/v1/jobs/" + url.PathEscape(j.ID) }

// jobWork does a job with the rights of the principal of its context. It may send from several goroutines.
type jobWork func(ctx context.Context, send func(*JobLine)) error

// startJob starts a job. The guard of Jobs checks the rights that it needs.
func (r *routes) startJob(ctx context.Context, kind string, scope fleet.Scope, request any, work jobWork) (*Job, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	j := ledger.Job{Kind: kind, Who: rights.Of(ctx).Name, Domain: scope.Domain, Region: scope.Region, Site: scope.Site, Channel: scope.Channel, Request: body}
	j, err = r.b.Jobs.Start(ctx, j, func(ctx context.Context, send func(jobs.Line)) []byte {
		err := work(ctx, func(l *JobLine) {
			if text, err := json.Marshal(l); err == nil {
				send(jobs.Line{Text: text, Progress: l.Progress != nil || l.Event != nil && l.Event.Progress != nil})
			}
		})
		if err == nil {
			return nil
		}
		failure, _ := json.Marshal(r.explainJob(ctx, err)) // it consists of texts
		return failure
	})
	if errors.Is(err, jobs.ErrBusy) || errors.Is(err, jobs.ErrMany) || errors.Is(err, jobs.ErrEnding) {
		err = &Error{Code: "conflict", Message: err.Error(), Fix: "nightferry job list shows the jobs; wait until one has ended, or stop one"}
	}
	if unknown := (*fleet.UnknownError)(nil); errors.As(err, &unknown) {
		err = &Error{Code: "absent", Message: unknown.Error(), Fix: "use a channel, a site, a region or a domain of the configuration"}
	}
	if err != nil {
		return nil, err
	}
	return jobOf(&jobs.Status{Job: j}), nil
}

// explainJob turns the error of a job into what its clients get.
func (r *routes) explainJob(ctx context.Context, err error) *Error {
	var stopped *jobs.StoppedError
	var known *Error
	switch {
	case errors.As(context.Cause(ctx), &stopped):
		return &Error{Code: "interrupted", Message: stopped.Error(), Fix: "to do it after all, start it again"}
	case ctx.Err() != nil:
		return interruptedJob()
	case errors.As(err, &known):
		return known
	case r.b.Explain != nil:
		return r.b.Explain(err)
	}
	return &Error{Code: "failed", Message: err.Error()}
}

func interruptedJob() *Error {
	return &Error{Code: "interrupted", Message: "the Core stopped during this job", Fix: "start it again"}
}

func jobOf(s *jobs.Status) *Job {
	j := &Job{ID: s.ID, Kind: s.Kind, Who: s.Who, Scope: Scope(jobScope(&s.Job)), Request: s.Request, State: s.State, Started: s.Started, Ended: s.Ended}
	if len(s.Request) == 0 {
		j.Request = nil
	}
	for text := range bytes.Lines(s.Lines) {
		var l JobLine
		if json.Unmarshal(text, &l) == nil { // else it is of another version
			j.Result = append(j.Result, l)
		}
	}
	if len(s.Progress) > 0 {
		j.Progress = &JobLine{}
		_ = json.Unmarshal(s.Progress, j.Progress) // the Core has made it
	}
	if len(s.Error) > 0 {
		j.Error = &Error{}
		_ = json.Unmarshal(s.Error, j.Error) // the Core has made it
	} else if s.State == jobs.Interrupted {
		j.Error = interruptedJob()
	}
	return j
}

// addJobs are the routes of long work.
func (r *routes) addJobs() {
	b := r.b
	get(r, some(rights.Viewer), "/v1/jobs", "Jobs, the newest first, without their results", func(ctx context.Context, q JobsQuery) ([]Job, error) {
		list, err := b.Jobs.List(ctx, q.After, cmp.Or(q.Limit, defaultJobs))
		return viewsOf(list, err, func(s *jobs.Status) Job { return *jobOf(s) })
	})
	get(r, some(rights.Viewer), "/v1/jobs/{id}", "One job: state, progress, result or error", func(ctx context.Context, q JobQuery) (*Job, error) {
		s, err := b.Jobs.Show(ctx, q.ID)
		return jobOf(&s), absentJob(err)
	})
	stream(r, some(rights.Viewer), http.MethodGet, "/v1/jobs/{id}/lines", "The lines of a job from its first, until it has ended", func(ctx context.Context, q JobQuery, _ none, send func(*JobLine) error) error {
		end, err := b.Jobs.Follow(ctx, q.ID, func(text []byte, missed int) error {
			l := &JobLine{}
			if err := json.Unmarshal(text, l); err != nil {
				return err
			}
			l.Missed = missed
			return send(l)
		})
		if err != nil {
			return absentJob(err)
		}
		if e := jobOf(&jobs.Status{Job: end}).Error; e != nil {
			return e
		}
		return nil
	})
	addRoute[JobQuery, none, Job](r, some(rights.Operator), http.MethodDelete, "/v1/jobs/{id}", mediaJSON, "Stop a job", func(ctx context.Context, _ *Call, q JobQuery, _ none) (any, error) {
		s, err := b.Jobs.Stop(ctx, q.ID, rights.Of(ctx).Name)
		return jobOf(&s), absentJob(err)
	})
	post(r, all(rights.Publisher), "/v1/publish", "Publish one channel, or all, as a job", func(ctx context.Context, q PublishRequest) (*Job, error) {
		return r.startJob(ctx, jobPublish, fleet.Scope{Channel: q.Channel}, q, func(ctx context.Context, send func(*JobLine)) error {
			return r.publishChannels(ctx, q, send)
		})
	})
	order[SyncRequest](r, "/v1/sync", "Request that sites start a run now, as a job", func(ctx context.Context, f FollowQuery, q SyncRequest) (*Job, error) {
		if err := checkAll(q.Scope, q.All); err != nil {
			return nil, err
		}
		scope := fleet.Scope(q.Scope)
		return r.startJob(ctx, "sync", scope, q, func(ctx context.Context, send func(*JobLine)) error {
			return r.followRuns(ctx, f, scope, send, func() ([]core.Order, error) {
				return b.Orders.Sync(ctx, core.SyncRequest{Scope: scope, DryRun: q.DryRun, Rehash: q.Rehash, Now: q.Now, Adopt: q.Adopt})
			}, func(core.Event) error { return nil })
		})
	})
	order[VerifyRequest](r, "/v1/verify", "Request that sites compare their files with their release, as a job", func(ctx context.Context, f FollowQuery, q VerifyRequest) (*Job, error) {
		if err := checkAll(q.Scope, q.All); err != nil {
			return nil, err
		}
		scope := fleet.Scope(q.Scope)
		return r.startJob(ctx, "verify", scope, q, func(ctx context.Context, send func(*JobLine)) error {
			return r.followRuns(ctx, f, scope, send, func() ([]core.Order, error) {
				return b.Orders.Verify(ctx, core.VerifyRequest{Scope: scope, Full: q.Full, Repair: q.Repair})
			}, func(ev core.Event) error { return r.sendDifferences(ctx, send, ev) })
		})
	})
}

// defaultJobs is the size of a page of jobs without a limit.
const defaultJobs = 100

// order adds a route that sends requests to sites.
func order[B any](r *routes, path, summary string, handle func(context.Context, FollowQuery, B) (*Job, error)) {
	addRoute[FollowQuery, B, Job](r, some(rights.Operator), http.MethodPost, path, mediaJSON, summary, func(ctx context.Context, _ *Call, f FollowQuery, body B) (any, error) {
		return handle(ctx, f, body)
	})
}

func absentJob(err error) error {
	if errors.Is(err, ledger.ErrNotFound) {
		return &Error{Code: "absent", Message: err.Error(), Fix: "nightferry job list shows the jobs; give more digits if several begin so"}
	}
	return err
}

// followRuns sends requests to sites, and with follow stays until every run of a connected site that obeys has ended. after is
// called with each event. If a person stops the job, it takes back the requests that no run has obeyed yet.
func (r *routes) followRuns(ctx context.Context, f FollowQuery, scope fleet.Scope, send func(*JobLine), order func() ([]core.Order, error), after func(core.Event) error) error {
	var orders []core.Order
	ordered := func(list []core.Order) error {
		orders = list
		send(&JobLine{Orders: listOf(list, orderOf)})
		return nil
	}
	if !f.Follow {
		list, err := order()
		if err != nil {
			return err
		}
		return ordered(list)
	}
	err := r.b.Orders.Follow(ctx, scope, order, ordered, func(ev core.Event) error {
		send(&JobLine{Event: eventOf(&ev)})
		return after(ev)
	})
	if errors.As(context.Cause(ctx), new(*jobs.StoppedError)) && len(orders) > 0 {
		withdrawn, left, err2 := r.b.Orders.Withdraw(context.WithoutCancel(ctx), orders)
		send(&JobLine{Withdrawn: listOf(withdrawn, orderOf), Left: listOf(left, orderOf)})
		err = errors.Join(err, err2)
	}
	return err
}

// sendDifferences sends the paths that a verify run found to differ, once it has ended.
func (r *routes) sendDifferences(ctx context.Context, send func(*JobLine), ev core.Event) error {
	if ev.Ended == nil {
		return nil
	}
	return r.b.Records.RunShow(ctx, ev.Run, false, func(query.RunDetail) error { return nil }, func(f record.File) error {
		if f.Outcome.Exception() {
			send(&JobLine{Differs: &Differing{ev.Site, ev.Channel, ev.Run, f.Path, f.Outcome, f.Cause}})
		}
		return nil
	})
}

// publishChannels publishes one channel, or all: one that cannot be published keeps no
// other back.
func (r *routes) publishChannels(ctx context.Context, q PublishRequest, send func(*JobLine)) error {
	channels := []string{q.Channel}
	if q.Channel == "" {
		if !q.Reviewed.IsZero() {
			return &Error{Code: "usage", Message: "a reviewed tree is that of one channel", Fix: "name the channel"}
		}
		channels = r.b.Publisher.Channels()
	}
	var failed error
	for _, channel := range channels {
		done, err := r.b.Publisher.Publish(ctx, channel, core.PublishOptions{
			AllowDeletes: q.AllowDeletes, AllowEmpty: q.AllowEmpty, AllowUnmounted: q.AllowUnmounted, Rehash: q.Rehash, DryRun: q.DryRun, Reviewed: q.Reviewed,
			OnProgress: func(p runs.Progress) { send(&JobLine{Channel: channel, Progress: &p}) },
		})
		if err != nil && len(channels) > 1 {
			err = fmt.Errorf("channel %s: %w", channel, err)
		}
		if err == nil {
			send(&JobLine{Channel: channel, Done: (*Published)(done)})
		}
		if failed = errors.Join(failed, err); ctx.Err() != nil {
			break
		}
	}
	return failed
}
