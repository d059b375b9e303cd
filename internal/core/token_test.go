package core_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// tokenUser connects as the one-time user of a token.
func (w *world) tokenUser(text string, onEvent func(bus.Event)) (*bus.Client, error) {
	w.t.Helper()
	token, err := wire.ParseToken(text)
	if err != nil {
		w.t.Fatal(err)
	}
	seed, _, err := bus.IdentityOf([32]byte(token.Seed))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.dial(token, token.JWT, seed, onEvent)
}

// mustBeUnwelcome demands that the bus refuses the user of a token.
func (w *world) mustBeUnwelcome(text string) {
	w.t.Helper()
	c, err := w.tokenUser(text, nil)
	if err == nil {
		c.Close()
		w.t.Error("the token's user was let in")
	} else if !errors.Is(err, bus.ErrUnwelcome) {
		w.t.Errorf("the token's user: %v", err)
	}
}

// TestUserOfUsedToken: the bus accepts the user of a token until the site that used it connects. From then on it refuses
// that user, also after a restart, and closes its connections.
func TestUserOfUsedToken(t *testing.T) {
	w := newWorld(t, nil)
	issued, err := w.core.Enrolment.Token(t.Context(), "osaka", 0)
	if err != nil {
		t.Fatal(err)
	}
	osaka, err := w.enrol(issued.Text, nil)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan bus.Event, 64)
	user, err := w.tokenUser(issued.Text, func(e bus.Event) {
		if e.Kind != bus.Connected {
			lost <- e
		}
	})
	if err != nil {
		t.Fatal("the answer to an enrolment may be lost, so the token's user must be able to return:", err)
	}
	defer user.Close()
	osaka.hello()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the token's user is still connected")
	}
	w.mustBeUnwelcome(issued.Text)
	if text := w.untilIncident("denied"); !strings.Contains(text, "token "+issued.ID+" for site apac/osaka, which was used") {
		t.Error(text)
	}
	w.restart()
	w.mustBeUnwelcome(issued.Text)
	osaka.back()
	osaka.hello()

	// A token of another site still works.
	w.join("tokyo").hello()
}

// TestUserOfRemovedSite: the bus refuses a site that is taken out of the configuration, or moved to another domain, until
// it is back.
func TestUserOfRemovedSite(t *testing.T) {
	w := newWorld(t, nil)
	osaka, tokyo := w.join("osaka"), w.join("tokyo")
	osaka.hello()
	tokyo.hello()
	reload := func(t *testing.T, change func(*fleet.Fleet)) {
		change(w.apart())
		if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
	}
	was := w.settings.Fleet
	for name, change := range map[string]func(*fleet.Fleet){
		"removed": func(f *fleet.Fleet) {
			f.Sites = slices.DeleteFunc(f.Sites, func(s fleet.Site) bool { return s.Name == "osaka" })
		},
		"moved": func(f *fleet.Fleet) {
			i := slices.IndexFunc(f.Sites, func(s fleet.Site) bool { return s.Name == "osaka" })
			f.Sites[i].Domain = "corp"
		},
	} {
		t.Run(name, func(t *testing.T) {
			osaka.connected()
			reload(t, change)
			osaka.mustBeCut()
			if text := w.untilIncident("denied"); !strings.Contains(text, "no such site in that domain") {
				t.Error(text)
			}
			tokyo.hello()
			reload(t, func(*fleet.Fleet) { w.settings.Fleet = was })
			osaka.back()
			osaka.hello()
		})
	}
}

// TestMovedSite: a site is moved to another domain in the configuration, and enrolls there. Its former identity ends,
// also if the configuration is put back, and site revoke ends the one that is left.
func TestMovedSite(t *testing.T) {
	w := newWorld(t, nil)
	was := w.settings.Fleet
	first := w.join("osaka")
	first.hello()
	move := func(f *fleet.Fleet) {
		w.settings.Fleet = f
		if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
	}
	moved := w.apart()
	i := slices.IndexFunc(moved.Sites, func(s fleet.Site) bool { return s.Name == "osaka" })
	moved.Sites[i].Domain = "corp"
	first.connected()
	move(moved)
	issued, err := w.core.Enrolment.Token(t.Context(), "osaka", 0)
	if err != nil {
		t.Fatal(err)
	}
	if issued.Joined.IsZero() || issued.Domain != "corp" {
		t.Errorf("the token ends an identity, and does not say so: %+v", issued)
	}
	second, err := w.enrol(issued.Text, nil)
	if err != nil {
		t.Fatal(err)
	}
	second.hello()
	w.untilDeed("enrolled", "in place of")

	move(was)
	first.mustBeCut()
	w.until("the reason of the refusal", func() bool {
		return slices.ContainsFunc(w.texts("denied"), func(s string) bool { return strings.Contains(s, "has joined in domain corp") })
	})
	move(moved)
	second.back()
	second.hello()
	w.restart()
	second.back()
	second.hello()
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "test"); err != nil {
		t.Fatal(err)
	}
	list, err := w.core.Query.Deeds(t.Context(), ledger.DeedFilter{What: "revoke"})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Detail, "key ") {
		t.Errorf("%+v, %v", list, err)
	}
	second.mustBeCut()
}
