package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/trust"
)

// parseDays reads a duration such as 90d, 2w, 36h or 1h30m.
func parseDays(s string) (time.Duration, error) {
	unit := time.Duration(0)
	if n := len(s); n > 1 {
		switch s[n-1] {
		case 'd':
			unit = 24 * time.Hour
		case 'w':
			unit = 7 * 24 * time.Hour
		}
	}
	if unit > 0 {
		v, err := strconv.ParseFloat(s[:len(s)-1], 64)
		if err != nil || !(v >= 0 && v <= 36500) {
			return 0, fmt.Errorf("duration %q: want a number and a unit, such as 90d, 2w, 36h or 30m", s)
		}
		return time.Duration(v * float64(unit)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("duration %q: want a number and a unit, such as 90d, 2w, 36h or 30m", s)
	}
	return d, nil
}

// parseMaxDelete reads a limit of deletes: 25% of the files, or 100 files.
func parseMaxDelete(s string) (percent float64, files int64, err error) {
	bad := fmt.Errorf("--max-delete %q: want a share such as 25%% or a number of files such as 100", s)
	if p, ok := strings.CutSuffix(s, "%"); ok {
		if percent, err = strconv.ParseFloat(strings.TrimSpace(p), 64); err != nil || !(percent > 0) || percent > 100 {
			return 0, 0, bad
		}
		return percent, 0, nil
	}
	if files, err = strconv.ParseInt(s, 10, 64); err != nil || files <= 0 {
		return 0, 0, bad
	}
	return 100, files, nil
}

// parseNumber reads the number of a release.
func parseNumber(s string) (trust.ReleaseNumber, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("release %q: want a number from 1", s)
	}
	return trust.ReleaseNumber(n), nil
}

// parseWhen reads a time: a day, an RFC 3339 time, or how long ago it was.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	if d, err := parseDays(strings.TrimSuffix(s, " ago")); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("time %q: want a day such as 2026-01-31, a time such as 2026-01-31T22:00:00Z, or how long ago, such as 2d or 6h", s)
}
