package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// row is one target of the project and the measured value. ok has no meaning if measured is empty.
type row struct {
	work, target, measured string
	ok                     bool
}

// targets judges each row of the table from the results alone, so that the report claims only measured values.
func targets(r *results) []row {
	ours := func(part, work string) *result { return r.find(part, work, "nightferry") }
	wall := func(x *result) float64 { return x.Usage.Wall.Seconds() }
	var rows []row
	add := func(work, target string, judge func() (string, bool)) {
		w := row{work: work, target: target}
		w.measured, w.ok = judge()
		rows = append(rows, w)
	}
	// ratio compares two results of one run; it is NaN if one is missing.
	ratio := func(of func(*result) float64, a, b *result) float64 {
		if a == nil || b == nil || a.Run != b.Run || of(b) == 0 {
			return math.NaN()
		}
		return of(a) / of(b)
	}
	times := func(limit float64, of func(*result) float64, part, work, tool string) func() (string, bool) {
		return func() (string, bool) {
			x := ratio(of, ours(part, work), r.find(part, work, tool))
			return number(x), x <= limit
		}
	}
	add(firstPush, "wall ≤ 0.40 × restic", times(0.40, wall, "corpus", firstPush, "restic"))
	add(firstPush, "wall ≤ 0.25 × rclone", times(0.25, wall, "corpus", firstPush, "rclone"))
	add("first pull, checked, durable", "wall ≤ 0.5 × restic, or ≤ 1.15 × a copy with a final sync", func() (string, bool) {
		pull := ours("corpus", firstPull)
		a, b := ratio(wall, pull, r.find("corpus", firstPull, "restic")), ratio(wall, pull, r.find("corpus", plainCopy, "cp"))
		return join(number(a)+" × restic", number(b)+" × copy", a, b), a <= 0.5 || b <= 1.15
	})
	for _, work := range []string{noopPush, noopPull} {
		add(work, "≤ 0.5 s, ≤ 5 requests", func() (string, bool) {
			x := ours("corpus", work)
			if x == nil {
				return "", false
			}
			// The sync after a no-op depends on the disk, but is part of the wall time.
			n := x.Usage.Net.total()
			return fmt.Sprintf("%s, %d requests", seconds(x.Usage.Wall), n), x.Usage.Wall <= 500*time.Millisecond && n <= 5
		})
	}
	for _, work := range []string{noopPush, noopPull} {
		add(work+", 1 000 000 files", "≤ 10 s, ≤ 8 requests, RSS ≤ 256 MiB", func() (string, bool) {
			x := ours("million", work)
			if x == nil {
				return "", false
			}
			u := x.Usage
			return fmt.Sprintf("%s, %d requests, %s", seconds(u.Wall), u.Net.total(), mib(u.RSS)),
				u.Wall <= 10*time.Second && u.Net.total() <= 8 && u.RSS <= 256<<20
		})
	}
	for _, d := range []struct {
		work string
		of   func(usage) int64
		name string
	}{{updatePush, func(u usage) int64 { return u.Net.Up }, "up"}, {updatePull, func(u usage) int64 { return u.Net.Down }, "down"}} {
		add(d.work, "bytes "+d.name+" ≤ 0.88 × restic's bytes up", func() (string, bool) {
			a, b := ours("corpus", d.work), r.find("corpus", updatePush, "restic")
			if a == nil || b == nil || a.Run != b.Run || b.Usage.Net.Up == 0 {
				return "", false
			}
			x := float64(d.of(a.Usage)) / float64(b.Usage.Net.Up)
			return number(x), x <= 0.88
		})
		add(d.work, "wall ≤ 0.5 × the best peer that leaves nothing stale", func() (string, bool) {
			var peers []*result
			for _, tool := range []string{"restic", "rclone", "aws"} {
				p, after := r.find("corpus", d.work, tool), r.find("corpus", updatePull, tool)
				if p == nil || after == nil || after.Verdict == nil || after.Verdict.Stale+after.Verdict.Missing > 0 {
					continue // skipping changed files makes this tool fast for the wrong reason
				}
				peers = append(peers, p)
			}
			if len(peers) == 0 {
				return "", false
			}
			best := slices.MinFunc(peers, func(a, b *result) int { return cmp.Compare(wall(a), wall(b)) })
			x := ratio(wall, ours("corpus", d.work), best)
			return join(number(x)+" × "+best.Tool, "", x, math.NaN()), x <= 0.5
		})
	}
	add("100 000 × 10 KB over 100 ms, 1 Gbit/s", "≥ 500 Mbit/s of payload", func() (string, bool) {
		x := ours("wan", firstPull)
		if x == nil || x.Verdict == nil {
			return "", false
		}
		rate := float64(x.Verdict.Files) * 10_000 * 8 / 1e6 / wall(x)
		return fmt.Sprintf("%.0f Mbit/s", rate), rate >= 500
	})
	for _, p := range []struct {
		tool string
		n    float64
	}{{"rclone", 15}, {"restic", 2}} {
		add("100 000 × 10 KB over 100 ms, 1 Gbit/s", fmt.Sprintf("≥ %.0f × %s", p.n, p.tool), func() (string, bool) {
			x := ratio(wall, r.find("wan", firstPull, p.tool), ours("wan", firstPull))
			return number(x), x >= p.n
		})
	}
	add(planPull, "≤ 5 s, RSS ≤ 256 MiB", func() (string, bool) {
		x := ours("index", planPull)
		if x == nil {
			return "", false
		}
		return seconds(x.Usage.Wall) + ", " + mib(x.Usage.RSS), x.Usage.Wall <= 5*time.Second && x.Usage.RSS <= 256<<20
	})
	for _, d := range []struct {
		work string
		of   func(usage) int64
		name string
	}{{updatePush, func(u usage) int64 { return u.Net.Up }, "upload"}, {updatePull, func(u usage) int64 { return u.Net.Down }, "download"}} {
		add("one chunk changed in a 40 GiB file", d.name+" < 2 MiB", func() (string, bool) {
			x := ours("sparse", d.work)
			if x == nil {
				return "", false
			}
			return mib(d.of(x.Usage)), d.of(x.Usage) < 2<<20
		})
	}
	add("peak RSS, everything above", "≤ 256 MiB", func() (string, bool) {
		var peak int64
		for _, x := range r.All {
			if x.Tool == "nightferry" {
				peak = max(peak, x.Usage.RSS)
			}
		}
		if peak == 0 {
			return "", false
		}
		return mib(peak), peak <= 256<<20
	})
	for _, work := range []string{firstPull, updatePull} {
		add("requests, "+work, "≤ bytes moved / 12 MiB + 10; no LIST, no HEAD", func() (string, bool) {
			x := ours("corpus", work)
			if x == nil {
				return "", false
			}
			n, budget := x.Usage.Net.total(), x.Usage.Net.Down/(12<<20)+10
			listed := x.Usage.Net.total("LIST", "HEAD")
			return fmt.Sprintf("%d of %d, LIST and HEAD %d", n, budget, listed), n <= budget && listed == 0
		})
	}
	return slices.Concat(rows, fleetTargets(r.Fleet), haltTargets(r.Halt), scrubTargets(r), rateTargets(r.Rate), planTargets(r.Plan), consoleTargets(r.Console))
}
