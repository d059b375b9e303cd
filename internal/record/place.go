package record

import (
	"fmt"
	"path"
	"strings"
	"time"
)

const (
	core      = "core" // the folder of the Core's own logs
	suffix    = ".jsonl"
	part      = ".part" // suffix of a log that is being written
	dayLayout = "2006-01-02"
)

// folderPath returns the path of the log's folder.
func (p Place) folderPath() string {
	day := p.Date.UTC().Format(dayLayout)
	if p.Domain == "" {
		return path.Join(core, p.Channel, day)
	}
	return path.Join(p.Domain, p.Site, p.Channel, day)
}

// Path returns the log's slash-separated path below the logs' folder.
func (p Place) Path() string { return path.Join(p.folderPath(), p.Run+suffix) }

func (p Place) validate() error {
	names := []string{p.Channel}
	if p.Domain != "" || p.Site != "" {
		if p.Domain == core {
			return fmt.Errorf("domain %q: the name is taken by the Core's own logs", p.Domain)
		}
		names = append(names, p.Domain, p.Site)
	}
	for _, n := range names {
		if !isName(n) {
			return fmt.Errorf("name %q: want a-z, 0-9 and -, 63 at most, not - first", n)
		}
	}
	if !isRun(p.Run) {
		return fmt.Errorf("run %q: want 32 hexadecimal digits", p.Run)
	}
	if y := p.Date.UTC().Year(); y < 1970 || y > 9999 {
		return fmt.Errorf("run %s: year %d is out of range", p.Run, y)
	}
	return nil
}

func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func isRun(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

func parseDay(name string) (time.Time, bool) {
	day, err := time.ParseInLocation(dayLayout, name, time.UTC)
	return day, err == nil && day.Format(dayLayout) == name
}
