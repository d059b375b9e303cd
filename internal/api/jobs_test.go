package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/jobs"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
	"nightferry/internal/runs"
)

// slow is a Core whose publish and whose runs at sites last until the job ends, or finish is closed.
type slow struct {
	*world
	reported chan bool // once per job that has sent its first line
	finish   chan bool
}

func (s slow) Publish(ctx context.Context, channel string, o core.PublishOptions) (*core.Published, error) {
	o.OnProgress(runs.Progress{Phase: "read", FilesDone: 3})
	s.reported <- true
	select {
	case <-s.finish:
		return &core.Published{Channel: channel, Number: 7}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s slow) Follow(ctx context.Context, _ fleet.Scope, order func() ([]core.Order, error), ordered func([]core.Order) error, _ func(core.Event) error) error {
	if _, err := order(); err != nil {
		return err
	}
	if err := ordered([]core.Order{{Site: "rome", Start: 5}}); err != nil {
		return err
	}
	s.reported <- true
	<-ctx.Done()
	return ctx.Err()
}

// newSlow serves a slow Core to tokens of administrators.
func newSlow(t *testing.T) (s slow, ask func(method, path, body, key string) (int, http.Header, string)) {
	t.Helper()
	s = slow{newWorld(), make(chan bool, 10), make(chan bool)}
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	service, err := jobs.Open(t.Context(), jobs.Options{Store: &l.Jobs, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	b := s.backend()
	b.Publisher, b.Orders, b.Jobs = s, s, service
	url, c := remote(t, ServerOptions{Routes: Routes(b), Tokens: &whoever{rights.Principal{Name: "token kay", Role: rights.Admin}}, Repeats: newRepeats(t), Explain: deniedError})
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, func(method, path, body, key string) (int, http.Header, string) {
		t.Helper()
		h := http.Header{"Authorization": {"Bearer x"}}
		if key != "" {
			h["Idempotency-Key"] = []string{key}
		}
		res, text := send(t, c, method, url+path, body, h)
		return res.StatusCode, res.Header, text
	}
}

func decodeJob(t *testing.T, text string) (j Job) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return j
}

// TestPublishIsAJob publishes as a job: a repeated request names the same one, the job shows its progress, and another client
// reads its lines to the end.
func TestPublishIsAJob(t *testing.T) {
	s, ask := newSlow(t)
	status, header, text := ask("POST", "/v1/publish", `{"channel":"package"}`, "k")
	j := decodeJob(t, text)
	place := header.Get("Location")
	if status != http.StatusAccepted || place != "/v1/jobs/"+j.ID || j.State != jobs.Running || j.Who != "token kay" {
		t.Fatalf("%d %q %s", status, place, text)
	}
	if status, header, again := ask("POST", "/v1/publish", `{"channel":"package"}`, "k"); status != http.StatusAccepted || again != text || header.Get("Location") != place {
		t.Errorf("repeated: %d %q %s", status, header.Get("Location"), again)
	}
	<-s.reported
	if _, _, text := ask("GET", place, "", ""); !strings.Contains(text, `"files_done":3`) || !strings.Contains(text, `"request":{"channel":"package"}`) {
		t.Errorf("while it runs: %s", text)
	}
	close(s.finish)
	if _, _, text := ask("GET", place+"/lines", "", ""); !strings.Contains(text, `"release":7`) || !strings.HasSuffix(text, "{\"end\":true}\n") {
		t.Errorf("lines: %s", text)
	}
	_, _, text = ask("GET", place, "", "")
	if j := decodeJob(t, text); j.State != jobs.Done || len(j.Result) != 1 || j.Result[0].Done.Number != 7 || j.Ended.IsZero() {
		t.Errorf("when it has ended: %s", text)
	}
	if _, _, text := ask("GET", "/v1/jobs?limit=5", "", ""); strings.Count(text, j.ID) != 1 || strings.Contains(text, "request") {
		t.Errorf("list: %s", text)
	}
	if len(s.reported) > 0 {
		t.Error("a repeated request published once more")
	}
	if status, _, text := ask("DELETE", "/v1/jobs/none", "", ""); status != http.StatusNotFound {
		t.Errorf("an unknown job: %d %s", status, text)
	}
}

// TestStopJobs stops a publish, and a sync that follows its runs: it withdraws its requests.
func TestStopJobs(t *testing.T) {
	s, ask := newSlow(t)
	for path, body := range map[string]string{"/v1/publish": `{"channel":"package"}`, "/v1/sync?follow=true": `{"scope":{"site":"rome"}}`} {
		_, header, _ := ask("POST", path, body, "")
		<-s.reported
		whole := header.Get("Location")
		for _, place := range []string{whole[:len(whole)-4], whole} { // the first digits suffice
			status, _, text := ask("DELETE", place, "", "")
			j := decodeJob(t, text)
			if status != http.StatusOK || j.State != jobs.Stopped || j.Error == nil || !strings.Contains(j.Error.Message, "token kay stopped") {
				t.Errorf("%s: %d %s", path, status, text)
			}
			if j.Kind == "sync" && (len(j.Result) != 2 || len(j.Result[1].Withdrawn) != 1 || j.Result[1].Withdrawn[0].Site != "rome") {
				t.Errorf("a sync: %s", text)
			}
		}
		if _, _, text := ask("GET", whole[:len(whole)-4]+"/lines", "", ""); !strings.Contains(text, `{"code":"interrupted"`) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// TestForgottenScope checks that a request without a scope moves no site, unless it states that it is for all.
func TestForgottenScope(t *testing.T) {
	_, ask := newSlow(t)
	for body, want := range map[string]int{`{}`: 400, `{"scope":{}}`: 400, `{"scope":{"channel":"package"}}`: 400, `{"scope":{"site":"rome"},"all":true}`: 400, `{"scope":{"site":"rome"}}`: 202, `{"all":true}`: 202} {
		for _, path := range []string{"/v1/sync", "/v1/verify"} {
			if status, _, text := ask("POST", path, body, ""); status != want {
				t.Errorf("%s %s: %d %s", path, body, status, text)
			}
		}
	}
}

// TestUnknownNames checks that work on an unknown name is refused, and starts no job.
func TestUnknownNames(t *testing.T) {
	_, ask := newSlow(t)
	for path, body := range map[string]string{"/v1/publish": `{"channel":"pakage"}`, "/v1/sync": `{"scope":{"site":"roma"}}`, "/v1/verify": `{"scope":{"site":"rome","channel":"pakage"}}`} {
		status, _, text := ask("POST", path, body, "")
		if status != http.StatusNotFound || !strings.Contains(text, "is named") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if _, _, text := ask("GET", "/v1/jobs", "", ""); strings.Contains(text, `"kind"`) {
		t.Errorf("jobs: %s", text)
	}
}
