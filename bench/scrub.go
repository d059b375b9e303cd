package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
)

// scrubWork is the work of reading every byte at a site and comparing it with the record of the applied release.
const scrubWork = "read and compare every byte"

// scrubRounds is the number of measurements of each tool, in turn; the median is used.
const scrubRounds = 3

// scrubPart compares a full check of a pulled folder with sha256sum over the same files. The check is the agent's scrub
// without a rate limit. Both find the files in memory. find passes the names to sha256sum.
func (b *bench) scrubPart(ctx context.Context) error {
	small, large := 20_000, 100
	if b.quick {
		small, large = 200, 4
	}
	src := filepath.Join(b.dir, "scrub")
	if err := errors.Join(manyFiles(filepath.Join(src, "small"), small, 500, 16<<10), manyFiles(filepath.Join(src, "large"), large, 20, 8<<20)); err != nil {
		return err
	}
	p, err := b.open(ctx, "nightferry", "scrub", src)
	if err != nil {
		return err
	}
	for _, c := range []command{p.push(src), p.pull(b.target())} {
		if _, err := spawn(ctx, c); err != nil {
			return err
		}
	}
	sum := command{b.target(), []string{"sh", "-c", "find . -path ./.nightferry -prune -o -type f -print0 | xargs -0 sha256sum > /dev/null"}, nil}
	tools := []struct {
		name string
		c    command
		all  []usage
	}{{"sha256sum", sum, nil}, {"nightferry", command{b.target(), []string{p.bin, "verify", "--quiet", b.target()}, p.env}, nil}}
	for round := range scrubRounds + 1 {
		for i := range tools {
			u, err := b.measure(ctx, tools[i].c, b.target())
			if err != nil {
				return err
			}
			b.log.Info("measured", "work", scrubWork, "tool", tools[i].name, "wall", u.Wall, "cpu", u.CPU)
			if round > 0 { // the first round reads into memory
				tools[i].all = append(tools[i].all, u)
			}
		}
	}
	for _, t := range tools {
		slices.SortFunc(t.all, func(x, y usage) int { return cmp.Compare(x.Wall, y.Wall) })
		b.results.add(result{Part: "scrub", Work: scrubWork, Tool: t.name, Usage: t.all[len(t.all)/2]})
	}
	return b.drop("scrub")
}

// scrubTargets judges the speed of the check.
func scrubTargets(r *results) []row {
	w := row{work: scrubWork, target: "≥ 0.8 × the speed of sha256sum"}
	ours, theirs := r.find("scrub", scrubWork, "nightferry"), r.find("scrub", scrubWork, "sha256sum")
	x := math.NaN()
	if ours != nil && theirs != nil && ours.Run == theirs.Run && ours.Usage.Wall > 0 {
		x = float64(theirs.Usage.Wall) / float64(ours.Usage.Wall)
	}
	w.measured, w.ok = number(x), x >= 0.8
	return []row{w}
}
