package core

import (
	"context"
	"strings"
	"time"

	"nightferry/internal/incident"
	"nightferry/internal/query"
	"nightferry/internal/text"
	"nightferry/internal/wire"
)

// emitChanged reports an incident that opened or ended.
func (n *notices) emitChanged(x incident.Change) {
	if x.Text == "" {
		n.emitEvent(Event{Kind: IncidentResolved, Domain: x.At.Domain, Site: x.At.Site, Text: x.Key})
	} else {
		n.emitEvent(Event{Kind: IncidentOpened, Domain: x.At.Domain, Site: x.At.Site, Text: string(x.Kind) + ": " + x.Text})
	}
}

// sweepIncidents resolves the incidents whose object is no longer configured.
func (c *Core) sweepIncidents() {
	enrolled := map[wire.Address]bool{}
	c.fleet.eachSite(func(a wire.Address, x *site) {
		x.mu.Lock()
		defer x.mu.Unlock()
		enrolled[a] = x.identity != nil
	})
	f := c.settings.Load().Fleet
	c.tasks.Retain(func(name string) bool {
		channel, publishes := strings.CutPrefix(name, publishTask)
		channel, measures := strings.CutPrefix(channel, measureTask)
		return !publishes && !measures || f.Channel(channel) != nil
	})
	c.incidents.ResolveUnconfigured(incident.Known{
		Channel: func(name string) bool { return f.Channel(name) != nil },
		Domain:  func(name string) bool { return f.Domain(name) != nil },
		Task:    c.tasks.Has,
		Site: func(at wire.Address, channel string) bool {
			s := f.Site(at.Site)
			return s != nil && s.Domain == at.Domain && enrolled[at] && (channel == "" || s.Placement(channel) != nil)
		},
	})
}

// CloseIncident closes an open incident for an operator. If its cause persists,
// a new one opens.
func (c *Core) CloseIncident(ctx context.Context, id int64, reason string) (query.Incident, error) {
	i, err := c.incidents.Close(ctx, id, actorOf(ctx), reason)
	return query.WithRemedy(i), err
}

// AckIncident notes that a person knows of an open incident. Until silent, no alert is sent of it; the zero time: reminders
// are not sent, all else is.
func (c *Core) AckIncident(ctx context.Context, id int64, note string, silent time.Time) (query.Incident, error) {
	i, err := c.incidents.Ack(ctx, id, actorOf(ctx), note, silent)
	return query.WithRemedy(i), err
}

// clipText bounds a text that others wrote.
func clipText(s string) string { return text.Bound(s, maxText) }

const (
	maxText = 1 << 10
	// again is how often what goes on is noted again.
	again = time.Minute
)
