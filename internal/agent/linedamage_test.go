package agent

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"

	"nightferry/internal/runs"
	"nightferry/internal/s3test"
)

// TestLineDamageIsReported: blocks that arrive damaged are fetched again, and the run ends verified. The site reports them,
// until a run has fetched without damage.
func TestLineDamageIsReported(t *testing.T) {
	flip := s3test.FlipBody(2, 300_000)
	w := newWorld(t, func(next http.Handler) http.Handler {
		flipped := flip(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			var from, to int64
			if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 2 && to-from > 300_000 {
				flipped.ServeHTTP(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	w.start(w.enrolled(base), nil)
	content := func(seed byte) map[string]string {
		b := make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
		return map[string]string{"image": string(b)}
	}
	target := filepath.Join(base, "package")
	files := content(1)
	w.publish(files, target)
	w.await("a verified run", func() bool { f := w.finished(0); return f != nil && f.Verdict == runs.Verified })
	w.same(target, files)
	w.await("word of the damage", func() bool { return w.problems()[ProblemLine] != "" })
	w.publish(content(2), target)
	w.await("the end of the problem", func() bool { return w.ended("verified") && w.problems()[ProblemLine] == "" && w.finished(1) != nil })
}
