package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// result is one measured piece of work of one tool.
type result struct {
	Part, Work, Tool string
	Run              string // start of the run: ratios only use results of the same run
	Usage            usage
	Verdict          *verdict // nil if there is nothing to compare, as after a push
}

// results holds all results, of this run and of earlier runs with other parts.
type results struct {
	Corpus corpus
	Tools  map[string]toolInfo
	All    []result
	Fleet  *fleetResult // nil: not measured
	Halt   *haltResult  // nil: not measured
	Rate   *rateResult  // nil: not measured
	Plan   *planResult  // nil: not measured
	// Console is nil if it was not measured.
	Console *consoleResult
	run     string
	path    string
}

type toolInfo struct{ Version, Note string }

func openResults(path string, now time.Time) (*results, error) {
	r := &results{Tools: map[string]toolInfo{}}
	if err := loadJSON(path, r); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the earlier results: %w", err)
	}
	r.path, r.run = path, now.UTC().Format("2006-01-02 15:04")
	return r, nil
}

func (r *results) save() error { return saveJSON(r.path, r) }

func (r *results) tool(p *peer) { r.Tools[p.name] = toolInfo{p.version, p.note} }

// add stores a result and replaces an earlier one of the same work and tool.
func (r *results) add(n result) {
	n.Run = r.run
	r.All = slices.DeleteFunc(r.All, func(o result) bool { return o.Part == n.Part && o.Work == n.Work && o.Tool == n.Tool })
	r.All = append(r.All, n)
}

func (r *results) judge(part, work, tool string, v verdict) {
	if f := r.find(part, work, tool); f != nil {
		f.Verdict = &v
	}
}

// find returns the result of that work, or nil if it was not measured.
func (r *results) find(part, work, tool string) *result {
	for i := range r.All {
		if o := &r.All[i]; o.Part == part && o.Work == work && o.Tool == tool {
			return o
		}
	}
	return nil
}
