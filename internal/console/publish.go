package console

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/digest"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/rights"
	"nightferry/internal/runs"
)

// publishes are the last publish, or dry run, of each channel that a page has started.
type publishes struct {
	mu  sync.Mutex
	all map[string]*publishing
}

// publishing is one publish, or its dry run.
type publishing struct {
	Channel, By                          string
	DryRun                               bool
	AllowDeletes, AllowEmpty, AllowMount bool
	Reviewed                             digest.Digest // the tree that its dry run has shown
	Started, Ended                       time.Time
	Progress                             *runs.Progress
	Done                                 *core.Published
	Failed                               *api.Error
	Refused                              bool // by a guard against mistakes
}

// begin returns a new entry of a channel, unless one has not ended.
func (p *publishes) begin(x publishing) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.all[x.Channel]; old != nil && old.Ended.IsZero() {
		return false
	}
	if p.all == nil {
		p.all = map[string]*publishing{}
	}
	p.all[x.Channel] = &x
	return true
}

// change changes the entry of a channel, which nothing else replaces until it has ended.
func (p *publishes) change(channel string, f func(*publishing)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.all[channel])
}

// of returns the entry of a channel; false: there is none.
func (p *publishes) of(channel string) (publishing, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.all[channel]; x != nil {
		return *x, true
	}
	return publishing{}, false
}

// publishPage reviews a publish before it is done.
type publishPage struct {
	Channels []string
	Channel  string
	Last     *publishing
	Files    []record.File
	More     bool
	Counts   []publishCount
	May      bool // publish the changes of the dry run
}

type publishCount struct {
	Word, Link string
	N          int64
}

// mayPublish refuses the page to those who may not publish: it shows paths of all sources. The backend refuses them the
// publish, and audits that.
func (c *Console) mayPublish(r *request) error {
	if r.may(rights.Publisher) && r.who.Scope.All() {
		return nil
	}
	_, err := c.b.Publisher.Publish(r.Context(), r.get("channel"), core.PublishOptions{DryRun: true})
	return err
}

func (c *Console) publish(r *request) (*page, error) {
	if err := c.mayPublish(r); err != nil {
		return nil, err
	}
	p := &publishPage{Channels: c.b.Publisher.Channels(), Channel: r.get("channel")}
	if p.Channel != "" && !slices.Contains(p.Channels, p.Channel) {
		return nil, &api.Error{Code: "absent", Message: "there is no channel " + p.Channel, Fix: "choose one of the page Publish"}
	}
	out := &page{Title: "Publish", Template: "publish", Data: p, Live: true, Command: command("publish", "CHANNEL", "--dry-run")}
	if p.Channel == "" {
		return out, nil
	}
	out.Command = command("publish", p.Channel, "--dry-run")
	last, ok := c.publishes.of(p.Channel)
	if !ok {
		return out, nil
	}
	p.Last = &last
	if last.Ended.IsZero() {
		out.Every = 2
	}
	if d := last.Done; d != nil && d.Run != "" {
		for _, x := range []publishCount{{"added", "", d.Added}, {"changed", "", d.Changed}, {"deleted", "", d.Removed}} {
			x.Link = link("/runs/"+d.Run, "outcome", x.Word)
			p.Counts = append(p.Counts, x)
		}
		p.May = last.Failed == nil && d.DryRun && !d.Unchanged
		if err := p.listChanges(r.Context(), c.b.Records, d.Run); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// listChanges lists the first files of a publish that differ from the release before.
func (p *publishPage) listChanges(ctx context.Context, records api.Records, run string) error {
	err := records.RunShow(ctx, run, false, func(query.RunDetail) error { return nil }, func(f record.File) error {
		if len(p.Files) == perPage {
			p.More = true
			return errEnough
		}
		p.Files = append(p.Files, f)
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// postPublish starts a publish, or its dry run. It does not end with the request.
func (c *Console) postPublish(r *request) (*page, error) {
	if err := c.mayPublish(r); err != nil {
		return nil, err
	}
	x := publishing{Channel: r.get("channel"), By: r.who.Name, DryRun: r.get("act") != "publish", AllowDeletes: r.get("deletes") == "true", AllowEmpty: r.get("empty") == "true", AllowMount: r.get("unmounted") == "true", Started: c.b.Now()}
	if !slices.Contains(c.b.Publisher.Channels(), x.Channel) {
		return nil, &api.Error{Code: "absent", Message: "there is no channel " + x.Channel, Fix: "choose one of the page Publish"}
	}
	switch r.get("act") {
	case "dry-run", "publish":
	default:
		return nil, &api.Error{Code: "usage", Message: "the form asks neither for a dry run nor for a publish", Fix: "use the page Publish"}
	}
	to := link("/publish", "channel", x.Channel)
	if last, ok := c.publishes.of(x.Channel); !x.DryRun && (!ok || !last.DryRun || last.Done == nil || last.Failed != nil) {
		return nil, &api.Error{Code: "usage", Message: "nothing was published: its dry run has not shown what would change", Fix: "start a dry run of the channel first"}
	}
	if !x.DryRun {
		if err := x.Reviewed.UnmarshalText([]byte(r.get("tree"))); err != nil || x.Reviewed.IsZero() {
			return nil, &api.Error{Code: "usage", Message: "nothing was published: the form names no reviewed tree", Fix: "go back to the review"}
		}
	}
	if !c.publishes.begin(x) {
		return nil, &api.Error{Code: "conflict", Message: "the channel is being published already", Fix: "wait for that to end: " + to}
	}
	who := r.who
	work := func(ctx context.Context) {
		c.publishes.run(rights.With(core.WithActor(ctx, who.Name), who), c.b.Publisher, x, c.explain, c.b.Now)
		c.memo.forget()
	}
	if c.o.Background == nil {
		work(context.WithoutCancel(r.Context()))
	} else {
		c.o.Background(work)
	}
	return &page{redirect: to}, nil
}

// run publishes with the rights of ctx, and keeps the progress and the result.
func (p *publishes) run(ctx context.Context, b api.Publisher, x publishing, explain func(error) *api.Error, now func() time.Time) {
	done, err := b.Publish(ctx, x.Channel, core.PublishOptions{DryRun: x.DryRun, AllowDeletes: x.AllowDeletes, AllowEmpty: x.AllowEmpty, AllowUnmounted: x.AllowMount, Reviewed: x.Reviewed,
		OnProgress: func(at runs.Progress) { p.change(x.Channel, func(e *publishing) { e.Progress = &at }) }})
	p.change(x.Channel, func(e *publishing) {
		e.Done, e.Ended = done, now()
		if err != nil {
			e.Failed = explain(err)
			e.Refused = e.Failed.Code == "refused"
		}
	})
}
