package bucket

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// rateUnits are bytes per second. Bits and bytes with k, M, G are decimal, as lines are sold; Ki, Mi, Gi are binary.
// Only the case of the last letter matters: b is bits, B is bytes.
var rateUnits = []struct {
	name  string
	bytes float64
}{
	{"kbit", 1e3 / 8}, {"mbit", 1e6 / 8}, {"gbit", 1e9 / 8},
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9},
	{"kbps", 1e3 / 8}, {"mbps", 1e6 / 8}, {"gbps", 1e9 / 8}, {"bps", 1.0 / 8}, // common network notation for bits
	{"bit", 1.0 / 8}, {"b", 1},
}

// ParseRate reads a rate such as 20Mbit, 2.5MB or 512KiB (per second; a trailing /s is allowed; 20Mbps is 20Mbit) and returns bytes per
// second, at least 1. The unit is required: a bare number, or an ambiguous 20Mb, is refused.
func ParseRate(s string) (int64, error) {
	text := strings.TrimSuffix(strings.TrimSpace(s), "/s")
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if n, err := strconv.ParseFloat(text, 64); err == nil && n == 0 {
		return 0, fmt.Errorf("rate %q: want at least 1 byte per second, and leave the limit out for none", s)
	}
	if end < 0 {
		return 0, fmt.Errorf("rate %q: no unit: write %sMbit for bits or %sMB for bytes per second", s, text, text)
	}
	n, err := strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0, fmt.Errorf("rate %q: no number before the unit: write a rate such as 20Mbit, 2.5MB or 512KiB", s)
	}
	unit := strings.TrimSpace(text[end:])
	if strings.HasSuffix(unit, "b") && !strings.HasSuffix(unit, "B") {
		return 0, fmt.Errorf("rate %q: %q may mean bits or bytes: write %sbit or %sB", s, unit, strings.TrimSuffix(unit, "b"), strings.TrimSuffix(unit, "b"))
	}
	if len(unit) == 1 && strings.ContainsAny(unit, "kKmMgG") {
		return 0, fmt.Errorf("rate %q: %s of what? write %s%sbit for bits or %s%sB for bytes per second", s, unit, text[:end], unit, text[:end], unit)
	}
	for _, u := range rateUnits {
		if u.name != strings.ToLower(unit) {
			continue
		}
		v := math.Round(n * u.bytes)
		if v < 1 || v > math.MaxInt64/2 {
			return 0, fmt.Errorf("rate %q: want at least 1 byte per second, and leave the limit out for none", s)
		}
		return int64(v), nil
	}
	return 0, fmt.Errorf("rate %q: unknown unit %q: use bit, kbit, Mbit, Gbit, B, kB, MB, GB, KiB, MiB or GiB", s, unit)
}
