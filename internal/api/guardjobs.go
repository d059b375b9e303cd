package api

import (
	"context"
	"fmt"

	"nightferry/internal/fleet"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

type guardedJobs struct {
	next Jobs
	*guard
}

func jobScope(j *ledger.Job) fleet.Scope {
	return fleet.Scope{Domain: j.Domain, Region: j.Region, Site: j.Site, Channel: j.Channel}
}

const jobPublish = "publish"

// mayDo needs the rights that the job itself needs.
func (g guardedJobs) mayDo(ctx context.Context, what string, j *ledger.Job) error {
	if j.Kind == jobPublish {
		return g.mayAll(ctx, rights.Publisher, what+j.Kind+" "+j.Channel)
	}
	return g.maySites(ctx, rights.Operator, what+j.Kind, jobScope(j))
}

// Start implements Jobs.
func (g guardedJobs) Start(ctx context.Context, j ledger.Job, work jobs.Work) (ledger.Job, error) {
	if err := g.mayDo(ctx, "", &j); err != nil {
		return j, err
	}
	if _, err := g.rights.Configured().Select(jobScope(&j)); err != nil { // else it would be accepted, and fail
		return j, hidden(ctx, err)
	}
	return g.next.Start(ctx, j, work)
}

// seesJob reports whether the principal may see every site of a job.
func (g guardedJobs) seesJob(ctx context.Context, j *ledger.Job) bool {
	s := rights.Of(ctx).Scope
	return s.All() || j.Kind != jobPublish && s.Covers(g.rights.Configured(), jobScope(j))
}

// Show answers for a job that the principal may not see as for one that does not exist.
func (g guardedJobs) Show(ctx context.Context, id string) (jobs.Status, error) {
	if err := g.may(ctx, rights.Viewer, "job", true); err != nil {
		return jobs.Status{}, err
	}
	j, err := g.next.Show(ctx, id)
	if err == nil && !g.seesJob(ctx, &j.Job) {
		j, err = jobs.Status{}, ledger.ErrNotFound
	}
	if err != nil {
		err = fmt.Errorf("job %q: %w", id, err)
	}
	return j, err
}

// Stop implements Jobs.
func (g guardedJobs) Stop(ctx context.Context, id, by string) (jobs.Status, error) {
	if err := g.may(ctx, rights.Operator, "job stop", true); err != nil {
		return jobs.Status{}, err
	}
	j, err := g.Show(ctx, id)
	if err == nil {
		err = g.mayDo(ctx, "stop ", &j.Job)
	}
	if err == nil {
		err = g.rights.Audit(ctx, "job stop", j.ID, j.Kind)
	}
	if err != nil {
		return jobs.Status{}, err
	}
	return g.next.Stop(ctx, j.ID, by) // id may be a prefix
}

// List implements Jobs.
func (g guardedJobs) List(ctx context.Context, after string, limit int) ([]jobs.Status, error) {
	if err := g.may(ctx, rights.Viewer, "jobs", true); err != nil {
		return nil, err
	}
	if rights.Of(ctx).Scope.All() {
		return g.next.List(ctx, after, limit)
	}
	list, err := g.next.List(ctx, after, maxLimited)
	out := []jobs.Status{}
	for i := range list {
		if len(out) < limit && g.seesJob(ctx, &list[i].Job) {
			out = append(out, list[i])
		}
	}
	return out, err
}

// Follow implements Jobs.
func (g guardedJobs) Follow(ctx context.Context, id string, send func(text []byte, missed int) error) (ledger.Job, error) {
	j, err := g.Show(ctx, id)
	if err != nil {
		return j.Job, err
	}
	return g.next.Follow(ctx, j.ID, send) // id may be a prefix
}
