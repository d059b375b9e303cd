package core_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/s3test"
)

// TestCoreStartsWithoutItsStore: the store refuses, or says nothing at all, while
// the Core starts. Its bus is there, it halts and resumes, and shows what it
// knows; when the store is back it gets the order.
func TestCoreStartsWithoutItsStore(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		t.Run(map[bool]string{false: "refuses", true: "says nothing"}[silent], func(t *testing.T) {
			var away atomic.Bool
			w := newWorldWith(t, nil, func(w *world) {
				b, _ := s3test.Through(t, w.bucket, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						switch {
						case !away.Load() || strings.Contains(r.UserAgent(), "agent"):
							next.ServeHTTP(rw, r)
						case silent:
							<-r.Context().Done()
						default:
							s3test.S3Error(rw, http.StatusForbidden, "AccessDenied", "down for the test")
						}
					})
				})
				w.options.StoreURL = b.URL("")
			})
			w.runAgent("osaka", true)
			w.stop()
			away.Store(true)
			w.start()
			w.until("osaka to be connected", func() bool {
				s, err := w.core.Query.Status(t.Context())
				return err == nil && s.Connected == 1
			})
			done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "now"})
			if err != nil || done.Store == "" {
				t.Fatalf("%+v, %v", done, err)
			}
			w.until("osaka to obey", w.obeys("osaka", done.Orders[0]))
			if v := w.halts()[done.Orders[0]]; !v.Unstored {
				t.Errorf("%+v", v)
			}
			w.restart()
			if m := w.halts(); len(m) != 1 {
				t.Errorf("after a restart: %+v", m)
			}
			away.Store(false)
			w.until("the bucket to have it", func() bool { active, _ := w.inBucket(); return len(active) == 1 })
			if _, err := w.core.Halts.Resume(t.Context(), "", halt.All, ""); err != nil {
				t.Fatal(err)
			}
		})
	}
}
