package core_test

import (
	"errors"
	"testing"

	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/publish"
)

// TestPublishesThatAreNoIncident: what a dry run is refused, and what an order
// does not let begin, has told the person who asked, and nobody else. The same
// refusal of a publish is an incident.
func TestPublishesThatAreNoIncident(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	w.remove("a.txt")
	guard := (*publish.GuardError)(nil)
	if _, err := w.core.Publish(t.Context(), "package", core.PublishOptions{DryRun: true}); !errors.As(err, &guard) {
		t.Errorf("a dry run of an empty source: %v", err)
	}
	if _, err := w.core.Publish(t.Context(), "driver", core.PublishOptions{DryRun: true}); err == nil {
		t.Error("a dry run without a source")
	}
	w.write("b.txt", "two")
	done, err := w.core.Halt(t.Context(), core.HaltRequest{Scope: halt.All, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	order := (*halt.Error)(nil)
	for _, dry := range []bool{false, true} {
		if _, err := w.core.Publish(t.Context(), "package", core.PublishOptions{AllowDeletes: true, DryRun: dry}); !errors.As(err, &order) {
			t.Errorf("under a halt, dry run %v: %v", dry, err)
		}
	}
	if _, err := w.core.Resume(t.Context(), done.Epoch, "", ""); err != nil {
		t.Fatal(err)
	}
	if texts := w.texts(string(core.Publishes)); len(texts) != 0 {
		t.Errorf("incidents: %q", texts)
	}
	w.remove("b.txt")
	if _, err := w.core.Publish(t.Context(), "package", core.PublishOptions{}); !errors.As(err, &guard) {
		t.Errorf("a publish of an empty source: %v", err)
	}
	if texts := w.texts(string(core.Publishes)); len(texts) != 1 {
		t.Errorf("incidents of a publish that was refused: %q", texts)
	}
}
