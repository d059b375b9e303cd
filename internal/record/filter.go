package record

import "time"

// Filter narrows a list; zero fields match everything.
type Filter struct {
	Domain, Site, Channel string
	Run                   string    // prefix of its id
	Core                  bool      // only the Core's own logs
	Since, Until          time.Time // by the folder's day, in UTC; both days are included
}

func (f Filter) matchesPlace(p Place) bool {
	switch {
	case f.Domain != "" && f.Domain != p.Domain, f.Site != "" && f.Site != p.Site,
		f.Channel != "" && f.Channel != p.Channel, f.Core && p.Domain != "":
		return false
	case !f.Since.IsZero() && p.Date.Before(f.Since.UTC().Truncate(24*time.Hour)):
		return false
	case !f.Until.IsZero() && p.Date.After(f.Until):
		return false
	}
	return true
}
