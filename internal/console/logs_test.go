package console

import (
	"net/http"
	"strings"
	"testing"

	"nightferry/internal/consoletest"
	"nightferry/internal/rights"
)

// reader may read the logs of plant, and nothing else.
var reader = rights.Principal{Name: "lars", Role: rights.Logs, Scope: rights.Scope{Domain: "plant"}}

// runOf returns the id of the newest run of a site that has ended.
func runOf(t *testing.T, w *consoletest.World, site string) string {
	t.Helper()
	for _, r := range w.RunList {
		if r.Site == site && !r.Finished.IsZero() {
			return r.ID.String()
		}
	}
	t.Fatalf("no run of %s has ended", site)
	return ""
}

// TestLogs reads logs as a reader of one domain: those of another one are neither listed, nor shown, nor sent.
func TestLogs(t *testing.T) {
	w := consoletest.New()
	h := as(reader, New(Options{Backend: w.Backend()}))
	own, other := runOf(t, w, "osaka"), runOf(t, w, "london")
	for target, want := range map[string]int{"/logs": 200, "/logs/" + own: 200, "/logs/" + own + "/file": 200, "/logs?domain=corp": 403, "/logs?days=0": 400, "/logs/" + other: 404, "/logs/" + other + "/file": 404,
		"/": 303, "/sites": 403, "/runs/" + own: 403, "/halt": 403, "/where?path=x": 403, "/audit": 403} {
		if out := get(t, h, target); out.Code != want {
			t.Errorf("%s: %d, want %d", target, out.Code, want)
		}
	}
	list := get(t, h, "/logs").Body.String()
	if !strings.Contains(list, "osaka") || strings.Contains(list, "london") || strings.Contains(list, "<option>corp") || strings.Contains(list, `href="/sites"`) || strings.Contains(list, `href="/halt"`) {
		t.Errorf("the list of a reader of plant, and what it is offered:\n%s", list)
	}
	page := get(t, h, "/logs/"+own+"?outcome=locked").Body.String()
	if !strings.Contains(page, "rtl8168.sys") || strings.Contains(page, "setup.exe") || !strings.Contains(page, "<option selected>locked") {
		t.Error("the page does not show the locked file alone")
	}
	if page = get(t, h, "/logs/"+own+"?text=SETUP").Body.String(); strings.Contains(page, "rtl8168.sys") || !strings.Contains(page, "setup.exe") {
		t.Error("the page does not search for a text")
	}
	out := get(t, h, "/logs/"+own+"/file")
	if lines := strings.Split(strings.TrimSpace(out.Body.String()), "\n"); len(lines) != 2+len(w.Files) || !strings.Contains(lines[0], `"nightferry_log"`) || out.Header().Get("Content-Disposition") != `attachment; filename="run-`+own+`.jsonl"` {
		t.Errorf("the file is %q, %v", lines, out.Header())
	}
}

// TestLogUnderWay asks for the log of a run that has not ended.
func TestLogUnderWay(t *testing.T) {
	w := consoletest.New()
	h := as(anna, New(Options{Backend: w.Backend()}))
	for _, r := range w.RunList {
		if r.Finished.IsZero() {
			if out := get(t, h, "/logs/"+r.ID.String()); out.Code != http.StatusNotFound || !strings.Contains(out.Body.String(), "when its run has ended") {
				t.Errorf("%d: %s", out.Code, out.Body)
			}
			return
		}
	}
	t.Fatal("no run is under way")
}
