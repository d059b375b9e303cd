package console

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/rights"
)

// incidentsPage lists incidents.
type incidentsPage struct {
	List []incidentView
	All  bool
	May  bool
	Need rights.Role
}

type incidentView struct {
	query.Incident
	Mark  mark
	Open  bool
	Quiet bool // no alert is sent of it now
}

func (c *Console) incidents(r *request) (*page, error) {
	p := &incidentsPage{All: r.get("all") == "true", May: r.may(rights.Operator), Need: rights.Operator}
	list, err := c.b.Fleet.Incidents(r.Context(), p.All)
	if err != nil {
		return nil, err
	}
	p.List = incidentViews(list, c.b.Now())
	args := []string{"incidents"}
	if p.All {
		args = append(args, "--all")
	}
	return &page{Title: "Incidents", Template: "incidents", Data: p, Live: true, Command: command(args...)}, nil
}

func incidentViews(list []query.Incident, now time.Time) (out []incidentView) {
	for _, i := range list {
		v := incidentView{Incident: i, Open: i.Resolved.IsZero(), Quiet: i.Resolved.IsZero() && i.Silent.After(now), Mark: mark{"diamond", "bad", "open"}}
		switch {
		case !v.Open:
			v.Mark = mark{"disc", "good", "over"}
		case i.Acked != "":
			v.Mark = mark{"half", "warn", "acknowledged"}
		}
		v.Members = slices.Clone(i.Members) // the list is shared
		slices.SortStableFunc(v.Members, func(a, b ledger.Member) int {
			return cmp.Or(a.Left.Compare(b.Left), b.Last.Compare(a.Last))
		})
		out = append(out, v)
	}
	return out
}

// silence returns until when no alert is to be sent; zero: no silence.
func (c *Console) silence(r *request) (time.Time, error) {
	text := r.get("silent")
	if text == "" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, &api.Error{Code: "usage", Message: "that is no time for which alerts can be silent", Fix: "choose one on the page Incidents"}
	}
	return c.b.Now().Add(d), nil
}

func (c *Console) postIncident(r *request) (*page, error) {
	id, err := strconv.ParseInt(r.get("id"), 10, 64)
	if !r.may(rights.Operator) { // before the form is judged
		if r.get("act") == "close" {
			_, err = c.b.Incidents.CloseIncident(r.Context(), id, "")
		} else {
			_, err = c.b.Incidents.AckIncident(r.Context(), id, "", time.Time{})
		}
		return nil, refused(err)
	}
	if err != nil || id < 1 {
		return nil, &api.Error{Code: "usage", Message: "no incident is named", Fix: "choose one on the page Incidents"}
	}
	note := r.get("note")
	if note == "" {
		return nil, &api.Error{Code: "usage", Message: "a note is required: the next person on call reads it", Fix: "go back and write one"}
	}
	if r.get("act") == "close" {
		_, err = c.b.Incidents.CloseIncident(r.Context(), id, note)
	} else {
		var silent time.Time
		if silent, err = c.silence(r); err == nil {
			_, err = c.b.Incidents.AckIncident(r.Context(), id, note, silent)
		}
	}
	if err != nil {
		return nil, err
	}
	return &page{redirect: "/incidents#i" + strconv.FormatInt(id, 10)}, nil
}
