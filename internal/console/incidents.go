package console

import (
	"cmp"
	"slices"
	"strconv"

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
	Mark mark
	Open bool
}

func (c *Console) incidents(r *request) (*page, error) {
	p := &incidentsPage{All: r.get("all") == "true", May: r.may(rights.Operator), Need: rights.Operator}
	list, err := c.b.Fleet.Incidents(r.Context(), p.All)
	if err != nil {
		return nil, err
	}
	p.List = incidentViews(list)
	args := []string{"incidents"}
	if p.All {
		args = append(args, "--all")
	}
	return &page{Title: "Incidents", Template: "incidents", Data: p, Live: true, Command: command(args...)}, nil
}

func incidentViews(list []query.Incident) (out []incidentView) {
	for _, i := range list {
		v := incidentView{Incident: i, Open: i.Resolved.IsZero(), Mark: mark{"diamond", "bad", "open"}}
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

func (c *Console) postIncident(r *request) (*page, error) {
	id, err := strconv.ParseInt(r.get("id"), 10, 64)
	if err != nil || id < 1 {
		return nil, &api.Error{Code: "usage", Message: "no incident is named", Fix: "choose one on the page Incidents"}
	}
	note := r.get("note")
	if note == "" {
		return nil, &api.Error{Code: "usage", Message: "a note is required: the next person on call reads it", Fix: "go back and write one"}
	}
	act := c.b.Incidents.AckIncident
	if r.get("act") == "close" {
		act = c.b.Incidents.CloseIncident
	}
	if _, err := act(r.Context(), id, note); err != nil {
		return nil, err
	}
	return &page{redirect: "/incidents#i" + strconv.FormatInt(id, 10)}, nil
}
