package agent

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"nightferry/internal/s3test"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// TestDamagedMemory damages the agent's database and the target's catalogue
// while the agent is down. Both are set aside and reported. Until the applied
// release can be read, nothing is deleted. Then ownership is rebuilt from its
// manifest: files that the next release drops go, the site's own file stays.
func TestDamagedMemory(t *testing.T) {
	var away atomic.Bool
	var missed atomic.Int64
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if away.Load() {
				missed.Add(1)
				s3test.S3Error(rw, http.StatusServiceUnavailable, "ServiceUnavailable", "down for the test")
				return
			}
			next.ServeHTTP(rw, r)
		})
	})
	base := t.TempDir()
	target, state := filepath.Join(base, "package"), w.enrolled(base)
	first, second := tree(40, "one"), tree(20, "one")
	d := w.start(state, nil)
	w.publish(first, target)
	w.await("run", func() bool { return w.finished(0) != nil })
	d.end()
	w.try(os.WriteFile(filepath.Join(target, "own.txt"), []byte("the site's own"), 0o644))

	spoil := func(path string, how func([]byte)) []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		w.try(err)
		how(b)
		w.try(os.WriteFile(path, b, 0o600))
		return b
	}
	for _, side := range []string{"-wal", "-shm"} {
		if err := os.Remove(filepath.Join(state, spoolFile+side)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	bad := spoil(filepath.Join(state, spoolFile), func(b []byte) {
		if len(b) <= 4096 { // all else was in what has just been removed, as a program that is killed leaves it
			clear(b[100:])
			return
		}
		clear(b[4096:])
	})
	catalogue := filepath.Join(target, ".nightferry", "catalogue")
	spoil(catalogue, func(b []byte) { b[len(b)/2] ^= 1 })
	w.publish(second, target) // heard when the agent is back

	// It starts, with the store away: what lies in the target stays, all of it.
	away.Store(true)
	d = w.start(state, nil)
	w.await("the problem", func() bool { return w.problems()["spool"] != "" })
	w.await("the store to be missed", func() bool { return missed.Load() > 1 })
	with := tree(40, "one")
	with["own.txt"] = "the site's own"
	w.same(target, with)
	kept, err := filepath.Glob(filepath.Join(state, spoolFile+".*"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("the damaged database is not kept: %v, %v", kept, err)
	}
	found := false
	for _, k := range kept {
		if b, err := os.ReadFile(k); err == nil && string(b) == string(bad) {
			found = true
		}
	}
	if !found {
		t.Errorf("what is set aside (%q) is not what was there", kept)
	}

	// The store is back: the applied release proves which files are a release's.
	away.Store(false)
	w.await("the run after the damage", func() bool {
		f := w.finished(1)
		return f != nil && f.Verdict != "failed"
	})
	second["own.txt"] = "the site's own"
	w.same(target, second)
	if f := w.finished(1); f.Deleted != int64(len(first)-20) {
		t.Errorf("%+v", f)
	}
	if _, err := os.Stat(catalogue + ".damaged"); err != nil {
		t.Errorf("the damaged catalogue is not kept: %v", err)
	}
	d.end()
	d = w.start(state, nil)
	w.await("the end of the problem", func() bool { return w.problems()["spool"] == "" })
	d.end()
}

// TestNewerCore: a Core of a later protocol, or one that signs nonsense, is
// refused by name, and nothing of it is obeyed.
func TestNewerCore(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	w.start(w.enrolled(base), nil)
	w.await("hello", func() bool { return w.hellos > 0 })
	for _, version := range []uint16{wire.Version + 1, wire.Version} {
		m, err := trust.Sign(w.key, trust.Subject{Kind: "stat", Version: version, Repo: w.repo.ID(), Scope: here.String(), Number: 1 << 40}, []byte{0, 0x80})
		w.try(err)
		b, err := (&wire.Down{Trust: w.repo.Memory().TrustDoc, Message: m}).Encode()
		w.try(err)
		w.try(w.client.Publish(here.Down(wire.VerbState), b))
	}
	w.await("the problem", func() bool { // of the first: it is one problem
		text := w.problems()[ProblemControl]
		return strings.Contains(text, fmt.Sprint("version ", wire.Version+1)) && strings.Contains(text, fmt.Sprint("up to ", wire.Version)) && strings.Contains(text, "upgrade nightferry-agent")
	})
	// It goes on with a Core that speaks its language.
	target := filepath.Join(base, "package")
	w.publish(tree(5, "one"), target)
	w.await("run", func() bool { return w.finished(0) != nil })
	w.same(target, tree(5, "one"))
}
