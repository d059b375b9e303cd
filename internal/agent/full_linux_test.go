package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/disktest"
	"nightferry/internal/durable"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// TestCredentialOnAFullDisk: a new credential that cannot be kept does not end
// the agent, which goes on with the old one and asks again.
func TestCredentialOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	base := t.TempDir()
	state := filepath.Join(t.TempDir(), "state")
	disktest.Volume(t, state, 8<<20)
	enrolled := w.enrolled(base)
	inside, err := os.ReadDir(enrolled)
	w.try(err)
	for _, e := range inside {
		b, err := os.ReadFile(filepath.Join(enrolled, e.Name()))
		w.try(err)
		w.try(os.WriteFile(filepath.Join(state, e.Name()), b, 0o600))
	}
	w.try(os.Chmod(state, 0o700))
	notes := make(chan Note, 1000)
	w.start(state, func(o *Options) { o.Log = func(n Note) { notes <- n } })
	w.await("hello", func() bool { return w.hellos > 0 })
	public, err := bus.PublicText(w.site[:])
	w.try(err)
	jwt, err := w.authority.User(here.Domain, here.Site, public, 80*24*time.Hour, time.Now().Add(time.Hour))
	w.try(err)
	// heard waits for the first of the notes that begins with one of the texts.
	heard := func(texts ...string) string {
		t.Helper()
		var others []string
		end := time.After(patience)
		for {
			select {
			case n := <-notes:
				for _, text := range texts {
					if strings.HasPrefix(n.Text, text) {
						return text
					}
				}
				others = append(others, fmt.Sprintf("%s: %v", n.Text, n.Err))
			case <-end:
				t.Fatalf("the agent said none of %q, but %q", texts, others)
			}
		}
	}
	const cannot, renewed = "the new credential cannot be kept", "the credential is renewed"
	for i := 0; ; i++ {
		disktest.Fill(t, filepath.Join(state, fmt.Sprintf("ballast-%d", i)))
		w.say(here, wire.VerbRenewed, 0, &wire.Renewed{JWT: jwt})
		if heard(cannot, renewed) == cannot {
			break
		}
		// One of the agent's own files was replaced, and its space was free again.
		if i == 5 {
			t.Fatal("the credential was kept on a full disk")
		}
	}
	left, err := filepath.Glob(filepath.Join(state, "ballast-*"))
	w.try(err)
	for _, name := range left {
		w.try(os.Remove(name))
	}
	w.say(here, wire.VerbRenewed, 0, &wire.Renewed{JWT: jwt})
	heard(renewed)
}

// TestForgottenRunOnAFullDisk: a run that nobody wants any more, and whose end
// cannot be kept, stays open until there is space.
func TestForgottenRunOnAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	disktest.Volume(t, dir, 4<<20)
	root, err := durable.Open(dir, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	sp, err := spool.Open(t.Context(), filepath.Join(dir, spoolFile), spool.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := options(dir, t.Logf)
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	a := newAgent(o, &Identity{Domain: here.Domain, Site: here.Site, Allow: []string{target}}, root, sp)
	want := wire.Desired{Channel: "package", Number: 1, Target: target}
	if _, err := a.beginRun(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	left, err := sp.Runs(t.Context())
	if err != nil || len(left) != 1 {
		t.Fatal(left, err)
	}
	ballast := filepath.Join(dir, "ballast")
	disktest.Fill(t, ballast)
	for err == nil { // the last pages of its files
		err = sp.Append(t.Context(), wire.Event{Channel: "package", Body: make([]byte, 3000)})
	}
	want.Number = 2
	again, err := a.bringChannel(t.Context(), t.Context(), &job{rate: newLimiter(0)}, want, &left[0])
	if !again || err != nil {
		t.Errorf("again %t, %v", again, err)
	}
	if left, err := sp.Runs(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("%d runs are open, %v", len(left), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if again, err = a.bringChannel(t.Context(), t.Context(), &job{rate: newLimiter(0)}, want, &left[0]); again || err != nil {
		t.Errorf("with space: again %t, %v", again, err)
	}
	if left, err := sp.Runs(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("with space %d runs are open, %v", len(left), err)
	}
}
