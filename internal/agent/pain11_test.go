package agent

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/runs"
	"nightferry/internal/testbed"
	"nightferry/internal/wire"
)

// meter stands before the store and notes which bytes of which pack a site was
// sent, so that what was sent twice is known to the byte.
type meter struct {
	mu   sync.Mutex
	sent map[string][][2]int64 // by pack: from, to
}

func (m *meter) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pack, ok := strings.Cut(r.URL.Path, "/packs/")
		if !ok || !r.URL.Query().Has("X-Amz-Signature") { // the Core's own
			next.ServeHTTP(w, r)
			return
		}
		var from int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		c := &metered{ResponseWriter: w}
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.sent[pack] = append(m.sent[pack], [2]int64{from, from + c.n})
		}()
		next.ServeHTTP(c, r)
	})
}

type metered struct {
	http.ResponseWriter
	n int64
}

func (c *metered) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

func (c *metered) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// twice returns the bytes that were sent, and those of them that had been sent
// before.
func (m *meter) twice() (all, twice int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, spans := range m.sent {
		slices.SortFunc(spans, func(a, b [2]int64) int { return int(a[0] - b[0]) })
		var end int64
		for _, s := range spans {
			all += s[1] - s[0]
			twice += max(0, min(end, s[1])-s[0])
			end = max(end, s[1])
		}
	}
	return all, twice
}

// night starts an agent as a process whose clock is ahead, and returns what
// kills it.
func (w *world) night(dir, point string, ahead time.Duration) (kill func()) {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir, childPoint+"="+point, childAhead+"="+ahead.String())
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	w.try(c.Start())
	kill = sync.OnceFunc(func() {
		_ = c.Process.Kill() // it may have killed itself
		_ = c.Wait()
	})
	w.t.Cleanup(kill)
	return kill
}

// TestPain11_ImageOverTwoNights: the window closes in the middle of an image of
// 20 GB, the process is killed, and the next night's goes on: of all that the
// store sends, less than one block for each connection is sent twice. The image
// is a disk's, most of it holes; NIGHTFERRY_SOAK makes it as large as the
// complaint was.
func TestPain11_ImageOverTwoNights(t *testing.T) {
	const piece, connections, block, bytesPerSecond = 1 << 20, 8, 1 << 20, 6_000_000
	size, pieces := int64(1<<30), int64(96)
	if testbed.Soak() {
		size, pieces = 20<<30, 192
	}
	m := &meter{sent: map[string][][2]int64{}}
	w := newWorld(t, m.fault)
	target := t.TempDir()
	dir := w.enrolled(target)
	f, err := os.Create(filepath.Join(w.src, "image.vhdx"))
	w.try(err)
	w.try(f.Truncate(size))
	content, b := rand.NewChaCha8([32]byte{11}), make([]byte, piece)
	for i := range pieces {
		_, err := content.Read(b)
		w.try(err)
		_, err = f.WriteAt(b, i*(size/pieces))
		w.try(err)
	}
	w.try(f.Close())
	w.release(target)

	end := time.Now().Add(time.Minute).Truncate(time.Minute).Add(time.Minute)
	next := end.Add(time.Minute)
	w.want(func(s *wire.State) {
		s.Zone, s.Beat, s.Rate = "UTC", 1, bytesPerSecond
		s.Desired[0].Windows = fmt.Sprintf("%s-%s, %s-%s", hhmm(end.Add(-5*time.Minute)), hhmm(end), hhmm(next), hhmm(next.Add(time.Hour)))
	})
	moved := min(8, time.Duration(pieces*piece/bytesPerSecond/2)) * time.Second
	ahead := time.Until(end) - moved - time.Second
	kill := w.night(dir, "", ahead)
	w.await("the end of the first night", func() bool { return w.finished(0) != nil })
	if late := time.Now().Add(ahead).Sub(end); late < 0 || late > 30*time.Second {
		t.Errorf("it was told %v after the window's end", late)
	}
	kill()
	first, _ := m.twice()
	w.mu.Lock()
	if told := w.progress.BytesWire; told < first/4 || told > first {
		t.Errorf("the last that was told of the night are %d bytes of %d", told, first)
	}
	w.mu.Unlock()
	if f := w.finished(0); f.Verdict != runs.Stopped || !strings.Contains(f.Error, "the window has closed") {
		t.Errorf("the first night ends %s: %s", f.Verdict, f.Error)
	}
	if first < pieces*piece/10 || first > pieces*piece*9/10 {
		t.Fatalf("%d bytes of %d were sent in the first night: this test needs its middle", first, pieces*piece)
	}
	w.night(dir, "", ahead+time.Minute)
	w.patiently("the end of the second night", size, func() bool { return w.finished(1) != nil })
	if f := w.finished(1); f.Verdict != "verified" {
		t.Fatalf("the second night ends %s: %s", f.Verdict, f.Error)
	}
	all, twice := m.twice()
	if twice >= connections*block {
		t.Errorf("%d bytes were sent twice, want less than one block for each of %d connections", twice, connections)
	}
	t.Logf("%d bytes in the first night, %d in all, of %d; %d of them twice", first, all, pieces*piece, twice)
}

// patiently waits as long as a disk may take for so many bytes.
func (w *world) patiently(what string, bytes int64, ok func() bool) {
	w.t.Helper()
	for limit := time.Now().Add(patience + time.Duration(bytes>>25)*time.Second); time.Now().Before(limit); {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.changed:
		case <-time.After(time.Second):
		}
	}
	w.t.Fatalf("no %s", what)
}

// slow is an Observer that lets a burst begin and then waits for a moment.
type slow struct {
	once  sync.Once
	until func()
}

func (s *slow) Before(op durable.Op) error {
	if op.Kind == durable.Rename && !strings.HasPrefix(op.To, state) && strings.HasPrefix(op.Name, state) {
		s.once.Do(s.until)
	}
	return nil
}

// TestPain11_BurstAtTheEndOfTheNight: a window that closes in the middle of the
// burst of renames lets it come to its end.
func TestPain11_BurstAtTheEndOfTheNight(t *testing.T) {
	w := newWorld(t)
	target := t.TempDir()
	dir := w.enrolled(target)
	w.publish(tree(80, "one"), target)
	end := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	w.want(func(s *wire.State) {
		s.Zone, s.Desired[0].Windows = "UTC", hhmm(end.Add(-10*time.Minute))+"-"+hhmm(end)
	})
	var ahead atomic.Int64
	ahead.Store(int64(time.Until(end) - 8*time.Second)) // of which a busy machine takes some to begin
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	inBurst := false
	w.start(dir, func(o *Options) {
		o.Now = clock
		o.Observer = &slow{until: func() {
			inBurst = clock().Before(end)
			for clock().Before(end.Add(500 * time.Millisecond)) {
				<-time.After(20 * time.Millisecond)
			}
		}}
	})
	w.await("the end of the run", func() bool { return w.finished(0) != nil })
	if !inBurst {
		t.Fatal("the burst began after the window: this test needs its middle")
	}
	if f := w.finished(0); f.Verdict != "verified" {
		t.Errorf("the night ends %s: %s", f.Verdict, f.Error)
	}
	w.same(target, tree(80, "one"))
}

// TestCommitIsFinishedOutsideTheWindow kills an agent in the middle of its burst,
// starts it while its window is closed and the Core says nothing, and finds the
// whole of the release there, with no byte of content asked for; the run itself
// is ended, and told, in the next window.
func TestCommitIsFinishedOutsideTheWindow(t *testing.T) {
	m := &meter{sent: map[string][][2]int64{}}
	w := newWorld(t, m.fault)
	base := t.TempDir()
	target := filepath.Join(base, "package")
	dir := w.enrolled(base)
	w.publish(tree(90, "one"), target)
	end := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	next := end.Add(5 * time.Minute)
	w.want(func(s *wire.State) {
		s.Zone = "UTC"
		s.Desired[0].Windows = fmt.Sprintf("%s-%s, %s-%s", hhmm(end.Add(-10*time.Minute)), hhmm(end), hhmm(next), hhmm(next.Add(time.Hour)))
	})
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir, childPoint+"=in the burst")
	if out, err := child.CombinedOutput(); err == nil {
		t.Fatalf("the child was not killed\n%s", out)
	}
	if left, err := filepath.Glob(filepath.Join(target, state, "journal")); err != nil || len(left) != 1 {
		t.Fatalf("no journal was left: %v", err)
	}
	w.mu.Lock()
	w.mute = true
	w.mu.Unlock()
	before, _ := m.twice()
	kill := w.night(dir, "", time.Until(end)+time.Minute)
	w.patiently("end of the commit", 0, func() bool {
		left, err := filepath.Glob(filepath.Join(target, state, "journal"))
		return err == nil && len(left) == 0
	})
	kill()
	w.same(target, tree(90, "one"))
	if after, _ := m.twice(); after != before {
		t.Errorf("%d bytes of content came outside the window", after-before)
	}
	w.mu.Lock()
	w.mute = false
	if w.finished(0) != nil {
		t.Error("the run ended outside its window")
	}
	w.mu.Unlock()
	w.night(dir, "", time.Until(next)+time.Minute)
	w.await("the end of the run", func() bool { return w.finished(0) != nil })
	if f := w.finished(0); f.Verdict != "verified" || f.Added != 90+7 {
		t.Errorf("the run ends %s: %d added: %s", f.Verdict, f.Added, f.Error)
	}
}
