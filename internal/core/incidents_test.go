package core_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/alert"
	"nightferry/internal/core"
	"nightferry/internal/mail"
	"nightferry/internal/s3test"
)

// TestOneCauseIsOneMail: while the store is away, nobody gets a mail about a
// publish that fails for it; about one that fails still when the store is back,
// he does.
func TestOneCauseIsOneMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	var away atomic.Bool
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if away.Load() {
				s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "no")
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	folder := t.TempDir()
	w.settings.Alerts = core.Alerts{Rules: alert.Rules{Mail: true, To: []string{"ops@example.com"}, Regions: map[string]alert.Region{"ap": {}, "emea": {}}},
		SMTP: mail.Server{Folder: folder, From: "nf@example.com"}}
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	told := func(text string) bool {
		w.ahead.Add(int64(5 * time.Second)) // 250 times too fast
		files, err := filepath.Glob(filepath.Join(folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), text) {
				return true
			}
		}
		return false
	}
	away.Store(true)
	w.untilIncident("store")
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); err == nil {
		t.Fatal("it was published into a store that is away")
	}
	w.untilIncident("publish")
	w.until("the mail about the store", func() bool { return told("new: store") })
	away.Store(false)
	w.until("the mail that it is back", func() bool { return told("over: store") })
	if told("new: publish") {
		t.Error("there is a mail about its symptom, too")
	}
	w.until("the mail about what still fails", func() bool { return told("new: publish") })
}

// TestHungSourceHoldsUpNobody: while one channel's source does not answer, others
// are published.
func TestHungSourceHoldsUpNobody(t *testing.T) {
	hung, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w := newWorldWith(t, nil, func(w *world) {
		w.options.OnEvent = func(e core.Event) {
			if e.Kind == core.RunStarted && e.Channel == "package" && e.Site == "" {
				once.Do(func() {
					close(hung)
					<-hold // a dead mount
				})
			}
			w.hear(e)
		}
	})
	w.write("a.txt", "one")
	dir := w.source + "-driver"
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "x.sys"), []byte("alpha"), 0o644)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{})
		done <- err
	}()
	<-hung
	if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); err != nil {
		t.Error(err)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
