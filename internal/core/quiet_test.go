package core_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/kinds"
	"nightferry/internal/push"
)

// TestPublishesThatAreNoIncident: what a dry run is refused, and what an order
// does not let begin, has told the person who asked, and nobody else. The same
// refusal of a publish is an incident.
func TestPublishesThatAreNoIncident(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	w.remove("a.txt")
	guard := (*push.GuardError)(nil)
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{DryRun: true}); !errors.As(err, &guard) {
		t.Errorf("a dry run of an empty source: %v", err)
	}
	if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{DryRun: true}); err == nil {
		t.Error("a dry run without a source")
	}
	w.write("b.txt", "two")
	done, err := w.core.Halts.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	order := (*halt.Error)(nil)
	for _, dry := range []bool{false, true} {
		if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{AllowDeletes: true, DryRun: dry}); !errors.As(err, &order) {
			t.Errorf("under a halt, dry run %v: %v", dry, err)
		}
	}
	if _, err := w.core.Halts.Resume(t.Context(), done.Orders[0].String(), "", ""); err != nil {
		t.Fatal(err)
	}
	if texts := w.texts(string(kinds.Publishes)); len(texts) != 0 {
		t.Errorf("incidents: %q", texts)
	}
	w.remove("b.txt")
	if _, err := w.core.Publisher.Publish(t.Context(), "package", core.PublishOptions{}); !errors.As(err, &guard) {
		t.Errorf("a publish of an empty source: %v", err)
	}
	if texts := w.texts(string(kinds.Publishes)); len(texts) != 1 {
		t.Errorf("incidents of a publish that was refused: %q", texts)
	}

	// A refusal that lists names keeps its lines in the incident, and is one line of the log.
	w.write("con.txt", "a device")
	w.write("aux.txt", "a device")
	f := *w.settings.Fleet
	f.Channels = slices.Clone(f.Channels)
	f.Channels[0].Source = f.Channel("package").Source
	w.settings.Fleet = &f
	if err := w.core.Reload(t.Context(), w.settings); err != nil {
		t.Fatal(err)
	}
	if _, err := w.core.Publisher.Publish(t.Context(), "driver", core.PublishOptions{}); !errors.As(err, &guard) {
		t.Errorf("a publish of names that Windows does not take: %v", err)
	}
	i := slices.IndexFunc(w.texts(string(kinds.Publishes)), func(s string) bool { return strings.HasPrefix(s, "channel driver: ") })
	if i < 0 || strings.Count(w.texts(string(kinds.Publishes))[i], "\n  ") != 2 {
		t.Errorf("the incident says %q", w.texts(string(kinds.Publishes)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i = slices.IndexFunc(w.events, func(e core.Event) bool {
		return e.Kind == core.IncidentOpened && strings.HasPrefix(e.Text, "publish: channel driver: ")
	})
	if i < 0 || strings.Contains(w.events[i].Text, "\n") || !strings.Contains(w.events[i].Text, ": nothing was published; name \"aux.txt\": ") {
		t.Errorf("the log says %+v", w.events)
	}
}
