package agent

import (
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestMendedClock: whoever sets a wrong clock right does not have to restart
// the agent as well.
func TestMendedClock(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	var behind atomic.Int64
	behind.Store(int64(time.Hour))
	w.start(w.enrolled(base), func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }
	})
	w.publish(tree(3, "one"), filepath.Join(base, "p"))
	w.await("clock problem", func() bool { return w.problems()[ProblemClock] != "" })
	behind.Store(0)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.await("the problem's end", func() bool { return w.problems()[ProblemClock] == "" })
}

// TestLyingDate: answers with a wrong date, as of a stale cache or with a
// flipped bit, do not stop a site for good.
func TestLyingDate(t *testing.T) {
	var lies atomic.Bool
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if lies.Load() && r.URL.Query().Has("X-Amz-Signature") { // the site's requests, not the Core's
				rw = &liar{rw}
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	w.start(w.enrolled(base), nil)
	w.publish(tree(3, "one"), filepath.Join(base, "p"))
	w.await("first run", func() bool { return w.finished(0) != nil })
	lies.Store(true)
	w.publish(tree(3, "two"), filepath.Join(base, "p"))
	w.await("clock problem", func() bool { return w.had(ProblemClock) }) // which may be over by the same report
	w.await("second run", func() bool { return w.finished(1) != nil })
	lies.Store(false)
	w.publish(tree(3, "three"), filepath.Join(base, "p"))
	w.await("third run", func() bool { return w.finished(2) != nil })
}

// liar changes the date of an answer.
type liar struct{ http.ResponseWriter }

func (l *liar) WriteHeader(code int) {
	l.Header().Set("Date", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	l.ResponseWriter.WriteHeader(code)
}

func (l *liar) Unwrap() http.ResponseWriter { return l.ResponseWriter }
