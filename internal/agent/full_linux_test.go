package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/disktest"
	"nightferry/internal/durable"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// fill writes until there is no space.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 16, 4 << 10, 1} {
		for b := make([]byte, size); err == nil; _, err = f.Write(b) {
		}
		if !durable.IsDiskFull(err) {
			t.Fatal(err)
		}
		err = nil
	}
}

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
	fill(t, filepath.Join(state, "ballast"))
	public, err := bus.PublicText(w.site[:])
	w.try(err)
	jwt, err := w.authority.User(here.Domain, here.Site, public, 80*24*time.Hour, time.Now().Add(time.Hour))
	w.try(err)
	said := func(text string) {
		t.Helper()
		end := time.After(patience)
		for {
			select {
			case n := <-notes:
				if len(n.Text) >= len(text) && n.Text[:len(text)] == text {
					return
				}
			case <-end:
				t.Fatalf("the agent did not say %q", text)
			}
		}
	}
	w.say(here, wire.VerbRenewed, 0, &wire.Renewed{JWT: jwt})
	said("the new credential cannot be kept")
	w.try(os.Remove(filepath.Join(state, "ballast")))
	w.say(here, wire.VerbRenewed, 0, &wire.Renewed{JWT: jwt})
	said("the credential is renewed")
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
	fill(t, ballast)
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
