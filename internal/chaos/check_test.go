//go:build linux

package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runLine is one run in the output of `nightferry runs`.
type runLine struct {
	ID                 string
	Domain, Site       string
	Channel, State     string
	Cause              string
	Release            uint64
	DryRun             bool `json:"dry_run"`
	Finished, Rendered time.Time
	Late               int64
	Totals             map[string]int64
}

// fileLine is a file's line, in a log or in the output of `run show`.
type fileLine struct {
	Path, Outcome string
	SHA256        string
}

func (w *world) runs() []runLine {
	w.t.Helper()
	return lines[runLine](w, "run", "runs", "--limit", "100000")
}

// check tests every condition that must hold at the end.
func (w *world) check() {
	w.t.Helper()
	for _, c := range w.channels {
		want := look(w.t, c.dir)
		for _, s := range w.sites {
			if diff := cmp.Diff(want, look(w.t, filepath.Join(s.root, c.name))); diff != "" {
				w.t.Errorf("%s at %s (-source +site):\n%s", c.name, s.site, diff)
			}
		}
	}
	for _, s := range w.sites {
		out, err := ask(w.t.Context(), w.env, "nightferry-agent", "status", "--state", s.state, "--json")
		if err != nil || !strings.Contains(out, `"spooled":0`) || strings.Contains(out, `"event":"running"`) || strings.Contains(out, `"event":"problem"`) {
			w.t.Errorf("%s has not told everything, or has trouble: %v\n%s", s.site, err, out)
		}
	}
	w.checkRuns()
	if err := w.core.signal(syscall.SIGTERM); err != nil {
		w.t.Error(err)
	}
	if out, err := ask(w.t.Context(), w.env, "nightferry", "fsck", "--read-data", w.storeURL, "--trust", filepath.Join(w.dir, "core", "nightferry-root.pub")); err != nil {
		w.t.Errorf("%v\n%s", err, out)
	}
	if left, err := filepath.Glob("/proc/[0-9]*/exe"); err == nil {
		for _, p := range left {
			if exe, err := os.Readlink(p); err == nil && strings.HasPrefix(exe, bin) {
				w.t.Errorf("%s still runs", p)
			}
		}
	}
}

// kinds lists the counted outcomes by name.
var kinds = []string{"added", "changed", "moved", "repaired", "deleted", "unchanged", "locked", "failed"}

func (w *world) checkRuns() {
	w.t.Helper()
	logs := map[string]string{}
	for _, l := range lines[struct{ File string }](w, "log", "logs") {
		id := strings.TrimSuffix(filepath.Base(l.File), ".jsonl")
		if logs[id] != "" {
			w.t.Errorf("run %s has two logs: %s and %s", id, logs[id], l.File)
		}
		logs[id] = l.File
	}
	states := map[string]int{}
	runs := w.runs()
	for _, r := range runs {
		who := r.Site
		if who == "" {
			who = "the Core"
		}
		states[fmt.Sprintf("%s %v", r.State, r.DryRun)]++
		if logs[r.ID] == "" {
			w.t.Errorf("run %s of %s at %s has no log", r.ID, r.Channel, who)
			continue
		}
		if r.Late != 0 {
			w.t.Errorf("run %s of %s at %s: %d events came after its end", r.ID, r.Channel, who, r.Late)
		}
		if err := w.checkLog(&r, logs[r.ID]); err != nil {
			w.t.Errorf("run %s of %s at %s (%s): %s: %v", r.ID, r.Channel, who, r.State, logs[r.ID], err)
		}
		delete(logs, r.ID)
		if r.Site != "" {
			if err := w.checkShown(&r); err != nil {
				w.t.Errorf("run %s of %s at %s (%s): run show: %v", r.ID, r.Channel, who, r.State, err)
			}
		}
	}
	for id, file := range logs {
		w.t.Errorf("the log %s is of no run: %s", file, id)
	}
	w.t.Logf("%d runs: %v", len(runs), states)
}

// checkLog parses a log as any reader could: a header, a line for each file, and an end that counts the lines.
func (w *world) checkLog(r *runLine, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	var head struct {
		Version int    `json:"nightferry_log"`
		Run     string `json:"run"`
	}
	end := map[string]any{}
	if len(all) < 2 {
		return fmt.Errorf("%d lines", len(all))
	}
	if err := json.Unmarshal([]byte(all[0]), &head); err != nil || head.Version == 0 || head.Run != r.ID {
		return fmt.Errorf("its header is %s: %v", all[0], err)
	}
	if err := json.Unmarshal([]byte(all[len(all)-1]), &end); err != nil || end["end"] != r.State {
		return fmt.Errorf("its last line is %s: %v", all[len(all)-1], err)
	}
	var files []fileLine
	for _, l := range all[1 : len(all)-1] {
		var f fileLine
		if err := json.Unmarshal([]byte(l), &f); err != nil {
			return fmt.Errorf("%q: %w", l, err)
		}
		files = append(files, f)
	}
	for _, k := range kinds {
		if n := end[k]; n != float64(r.Totals[k]) {
			return fmt.Errorf("its last line counts %v %s, the ledger %d", n, k, r.Totals[k])
		}
	}
	if r.Site == "" {
		for i := range files {
			files[i].Outcome = published[files[i].Outcome]
		}
		files = slices.DeleteFunc(files, func(f fileLine) bool { return f.Outcome == "" })
	}
	counts, err := once(files)
	if err != nil {
		return err
	}
	everything := r.Channel == "driver" && r.State == "verified"
	for _, k := range kinds {
		if k == "unchanged" && !everything {
			continue
		}
		if int64(counts[k]) != r.Totals[k] {
			return fmt.Errorf("%d lines say %s, the ledger counts %d", counts[k], k, r.Totals[k])
		}
	}
	return nil
}

// published maps the outcomes of a publish to the names under which they are counted.
var published = map[string]string{"added": "added", "changed": "changed", "touched": "changed", "removed": "deleted", "failed": "failed"}

// once counts outcomes and checks that no file has two.
func once(files []fileLine) (map[string]int, error) {
	counts, seen := map[string]int{}, map[string]string{}
	for _, f := range files {
		if was := seen[f.Path]; was != "" {
			return nil, fmt.Errorf("%q is both %s and %s", f.Path, was, f.Outcome)
		}
		seen[f.Path] = f.Outcome
		counts[f.Outcome]++
	}
	return counts, nil
}

// checkShown requests every file of a run.
func (w *world) checkShown(r *runLine) error {
	files := lines[fileLine](w, "file", "run", "show", r.ID, "--all-files")
	counts, err := once(files)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if int64(counts[k]) != r.Totals[k] {
			return fmt.Errorf("%d lines say %s, the ledger counts %d", counts[k], k, r.Totals[k])
		}
	}
	i := slices.IndexFunc(w.channels, func(c *content) bool { return c.name == r.Channel })
	want, ok := w.channels[i].releases[r.Release]
	if !ok || r.State != "verified" {
		return nil // the release's content is unknown, or the run is not complete
	}
	got := tree{}
	for _, f := range files {
		switch {
		case f.Outcome == "deleted" || f.Outcome == "extra":
		case f.SHA256 == "":
			got[f.Path] = "folder"
		default:
			got[f.Path] = f.SHA256
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("it is not release %d (-want +got):\n%s", r.Release, cmp.Diff(want, got))
	}
	return nil
}
