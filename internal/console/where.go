package console

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/fleet"
	"nightferry/internal/query"
)

// wherePage answers where a file is.
type wherePage struct {
	Channel, Path string
	Channels      []string
	Found         []whereFile
	Missing       []*api.Error // of each channel that was searched
	CSV           string
}

// whereFile is the file of one channel.
type whereFile struct {
	Channel                string
	Places                 []wherePlace
	Current, Lack, Unknown int
}

type wherePlace struct {
	query.Place
	Mark mark
	Why  string
	Zone string
}

var placeMarks = map[string]mark{"current": {"disc", "good", "current"}, "older": {"half", "idle", "older"}, "nothing yet": {"square", "none", "nothing yet"}, "absent": {"ring", "idle", "absent"},
	"missing": {"diamond", "bad", "missing"}, "differs": {"diamond", "bad", "differs"}, "unproven": {"query", "warn", "unproven"}}

func (c *Console) where(r *request) (*page, error) {
	w, err := c.findPlaces(r)
	if err != nil {
		return nil, err
	}
	p := &page{Title: "Where is it?", Template: "where", Data: w, Live: w.Path != "", Command: command("where", "CHANNEL/PATH")}
	if w.Path != "" && w.Channel != "" {
		p.Command = command("where", w.Channel+"/"+w.Path)
	}
	return p, nil
}

func (c *Console) findPlaces(r *request) (*wherePage, error) {
	sites, err := c.sites(r)
	if err != nil {
		return nil, err
	}
	w := &wherePage{Channel: r.get("channel"), Path: strings.TrimPrefix(r.get("path"), "/"), Channels: channelsOf(sites)}
	if w.Path == "" {
		return w, nil
	}
	if head, rest, ok := strings.Cut(w.Path, "/"); ok && w.Channel == "" && slices.Contains(w.Channels, head) {
		w.Channel, w.Path = head, rest // as the command has it: CHANNEL/PATH
	}
	w.CSV = link("/where.csv", "channel", w.Channel, "path", w.Path)
	zones, whys := map[string]string{}, map[string]string{}
	for _, s := range sites {
		zones[s.Site] = s.Zone
		for _, ch := range s.Channels {
			whys[s.Site+"\x00"+ch.Channel] = ch.Why
		}
	}
	for _, channel := range w.Channels {
		if w.Channel != "" && w.Channel != channel {
			continue
		}
		list, err := c.b.Fleet.Where(r.Context(), channel, w.Path)
		var unknown *fleet.UnknownError
		if errors.As(err, &unknown) || errors.Is(err, fs.ErrNotExist) {
			w.Missing = append(w.Missing, c.explain(err))
			continue
		}
		if err != nil {
			return nil, err
		}
		f := whereFile{Channel: channel}
		for _, x := range list {
			p := wherePlace{Place: x, Zone: zones[x.Site], Why: x.Cause}
			var ok bool
			if p.Mark, ok = placeMarks[x.State]; !ok {
				p.Mark = mark{"query", "warn", x.State}
			}
			switch {
			case x.Current:
				f.Current++
			case x.State == "unproven":
				f.Unknown++
			default:
				f.Lack++
			}
			if p.Why == "" && !x.Current {
				p.Why = whys[x.Site+"\x00"+channel]
			}
			f.Places = append(f.Places, p)
		}
		slices.SortStableFunc(f.Places, func(a, b wherePlace) int { return rankPlace(a.State) - rankPlace(b.State) })
		w.Found = append(w.Found, f)
	}
	return w, nil
}

func rankPlace(state string) int {
	return slices.Index([]string{"differs", "missing", "unproven", "nothing yet", "absent", "older", "current"}, state)
}

func channelsOf(sites []query.SiteStatus) (out []string) {
	for _, s := range sites {
		for _, ch := range s.Channels {
			out = append(out, ch.Channel)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// whereCSV is the same as a file for a spreadsheet.
func (c *Console) whereCSV(r *request) (*page, error) {
	w, err := c.findPlaces(r)
	if err != nil {
		return nil, err
	}
	rows := [][]string{{"channel", "path", "domain", "site", "state", "release", "size", "sha256", "since", "verified", "cause"}}
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, f := range w.Found {
		for _, p := range f.Places {
			sum := ""
			if p.Present {
				sum = p.Digest.String()
			}
			rows = append(rows, []string{f.Channel, w.Path, p.Domain, p.Site, p.State, group(uint64(p.Release)), group(p.Size), sum, at(p.Since), at(p.Verified), p.Why})
		}
	}
	return csvPage("where.csv", rows), nil
}

// csvPage is a table as a file. A cell that a spreadsheet would take for a formula gets an apostrophe in front.
func csvPage(name string, rows [][]string) *page {
	return &page{raw: func(w http.ResponseWriter, _ *request) {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		out := csv.NewWriter(w)
		for _, row := range rows {
			for i, cell := range row {
				cell = string(visible([]byte(strings.NewReplacer("\n", " ", "\t", " ").Replace(cell))))
				if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
					cell = "'" + cell
				}
				row[i] = cell
			}
			_ = out.Write(row) // the client has gone
		}
		out.Flush()
	}}
}
