package core_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/record"
	"nightferry/internal/s3test"
)

// TestFailedPublishCounts: the summary of a publish that failed late counts the
// files that its log names.
func TestFailedPublishCounts(t *testing.T) {
	w := newWorld(t, nil)
	var full atomic.Bool
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if full.Load() && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/head") {
				s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "no")
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	for _, name := range []string{"a", "b", "c"} {
		w.write(name, name)
	}
	full.Store(true)
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); err == nil {
		t.Fatal("published")
	}
	run := w.newest(ledger.RunFilter{Core: true})
	if run == nil {
		t.Fatal("there is no run")
	}
	added := int64(0)
	err := w.core.Query.RunShow(t.Context(), run.ID.String(), false, func(query.RunDetail) error { return nil }, func(f record.File) error {
		if f.Outcome == "added" {
			added++
		}
		return nil
	})
	if err != nil || run.State != "failed" || added != 3 || run.Totals.Added != added {
		t.Errorf("%v: %d lines say added, the ledger says %+v", err, added, run)
	}
}

// TestStatedAfterAll: who orders a publish goes away between the release and the
// word of it. Sites are told all the same.
func TestStatedAfterAll(t *testing.T) {
	var leave atomic.Pointer[context.CancelFunc]
	w := newWorldWith(t, nil, func(w *world) {
		hear := w.options.OnEvent
		w.options.OnEvent = func(e core.Event) {
			if stop := leave.Load(); stop != nil && e.Kind == core.Released {
				(*stop)()
			}
			hear(e)
		}
	})
	w.write("a.txt", "one")
	osaka := w.join("osaka")
	w.publish("package")
	osaka.stateOf("package", 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	leave.Store(&stop)
	w.write("a.txt", "two")
	if _, err := w.core.Publisher.Publish(ctx, "package", core.PublishOptions{}); err == nil {
		t.Fatal("the publish was not left")
	}
	w.until("release 2 to be stated", func() bool {
		st, _ := osaka.hello()
		return len(st.Desired) == 1 && st.Desired[0].Number == 2
	})
}

// TestDamagedRequestAtTheStart: one answer of the store that nobody would give
// to what was sent does not keep the Core from beginning.
func TestDamagedRequestAtTheStart(t *testing.T) {
	w := newWorld(t, nil)
	w.through(s3test.Refuse(1, s3test.KindGet, http.StatusBadRequest, "BadRequest", "An error occurred when parsing the HTTP request."))
	w.write("a", "alpha")
	w.publish("package")
}

// TestPublishBeforeLeftoversAreClosed: a client orders a publish as soon as the
// socket is open. The start of the Core, which closes the runs of the process
// before, leaves that run alone.
func TestPublishBeforeLeftoversAreClosed(t *testing.T) {
	w := newWorld(t, nil)
	var hold atomic.Bool
	at, goOn := make(chan struct{}), make(chan struct{})
	w.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/head") && hold.CompareAndSwap(true, false) {
				close(at)
				<-goOn
			}
			next.ServeHTTP(rw, r)
		})
	})
	w.write("a", "a")
	w.stop()
	c, err := core.Open(t.Context(), w.options, w.settings)
	if err != nil {
		t.Fatal(err)
	}
	hold.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := c.Publisher.Publish(t.Context(), "package", core.PublishOptions{})
		done <- err
	}()
	<-at
	w.core = c
	closed := c.CloseOwnRuns(t.Context())
	if w.newest(ledger.RunFilter{Core: true, Open: true}) == nil {
		t.Error("the run that goes on was closed")
	}
	close(goOn)
	if err := errors.Join(closed, <-done, c.Close()); err != nil {
		t.Fatal(err)
	}
	w.start()
	if run := w.newest(ledger.RunFilter{Core: true}); run == nil || run.State != "published" || run.Late != 0 {
		t.Errorf("%+v", run)
	}
}
